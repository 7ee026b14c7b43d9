# Report, Section 4.2: Stage I of SE-ResNeXt-101 (32x4d), for the students of Table 1.
_base_ = ['../ipirm_simclr_r50.py', '../_base_/backbones/seresnext101.py']

model = dict(backbone=dict(_delete_=True, **_base_.seresnext101))
