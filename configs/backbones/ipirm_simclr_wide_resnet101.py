# Report, Section 4.2: Stage I of Wide-ResNet-101-2, for the students of Table 1.
_base_ = ['../ipirm_simclr_r50.py', '../_base_/backbones/wide_resnet101.py']

model = dict(backbone=dict(_delete_=True, **_base_.wide_resnet101))
