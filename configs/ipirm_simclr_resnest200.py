# Report, Section 4.2: Stage I of ResNeSt-200, for the students of Table 1.
_base_ = ['ipirm_simclr_r50.py']

model = dict(
    backbone=dict(
        _delete_=True, type='ResNeSt', depth=200, stem_channels=128, norm_cfg=dict(type='SyncBN')
    )
)
