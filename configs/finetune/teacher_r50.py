# Report, Section 3.2: the teacher of Table 4, ResNet-50 fine-tuned from Stage I with labels. The
# report leaves open whether the teacher was fine-tuned. The configs of the other reading are
# configs/distill/*_r50_stage1_teacher.py, of the losses that need no logits.
_base_ = [
    '../_base_/backbones/resnet50.py',
    '../_base_/models/classifier.py',
    '../_base_/datasets/vipriors_distill.py',
    '../_base_/schedules/distill_100e.py',
    '../_base_/default_runtime.py',
]

stage1 = dict(
    type='Pretrained', checkpoint='work_dirs/ipirm_simclr_r50/epoch_800.pth', prefix='backbone.'
)
model = dict(backbone=dict(init_cfg=stage1, **_base_.resnet50))
custom_hooks = [dict(type='SetEpochHook')]
