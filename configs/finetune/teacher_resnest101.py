# Report, Section 3.2: the teacher of Table 1's ResNeSt-101,
# fine-tuned from Stage I with labels.
_base_ = [
    '../_base_/backbones/resnest101.py',
    '../_base_/models/classifier.py',
    '../_base_/datasets/vipriors_distill_330.py',
    '../_base_/schedules/distill_100e.py',
    '../_base_/default_runtime.py',
]

stage1 = dict(
    type='Pretrained',
    checkpoint='work_dirs/ipirm_simclr_resnest101/epoch_800.pth',
    prefix='backbone.',
)
model = dict(backbone=dict(init_cfg=stage1, **_base_.resnest101))
custom_hooks = [dict(type='SetEpochHook')]
