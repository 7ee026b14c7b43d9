# Report, Section 3.2: the teacher of Table 1's Wide-ResNet-101-2,
# fine-tuned from Stage I with labels.
_base_ = [
    '../_base_/backbones/wide_resnet101.py',
    '../_base_/models/classifier.py',
    '../_base_/datasets/vipriors_distill_330.py',
    '../_base_/schedules/distill_100e.py',
    '../_base_/default_runtime.py',
]

stage1 = dict(
    type='Pretrained',
    checkpoint='work_dirs/ipirm_simclr_wide_resnet101/epoch_800.pth',
    prefix='backbone.',
)
model = dict(backbone=dict(init_cfg=stage1, **_base_.wide_resnet101))
custom_hooks = [dict(type='SetEpochHook')]
