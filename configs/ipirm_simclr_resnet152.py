# Report, Section 4.2: Stage I of ResNet-152, for the students of Table 1.
_base_ = ['ipirm_simclr_r50.py']

model = dict(backbone=dict(_delete_=True, type='ResNet', depth=152, norm_cfg=dict(type='SyncBN')))
