# Report, Section 4.2: Stage I of ResNeSt-269, for the students of Table 1.
_base_ = ['../ipirm_simclr_r50.py', '../_base_/backbones/resnest269.py']

model = dict(backbone=dict(_delete_=True, **_base_.resnest269))
