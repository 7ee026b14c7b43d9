# Report, Table 4, row "OFD, Multiple feature layers": 61.31 on the test split. The
# report does not give the resolution, but a range from 300 to 448.
_base_ = [
    '../_base_/backbones/resnet50.py',
    '../_base_/models/classifier.py',
    '../_base_/datasets/vipriors_distill_330.py',
    '../_base_/schedules/distill_100e.py',
    '../_base_/default_runtime.py',
]

stage1 = dict(
    type='Pretrained', checkpoint='work_dirs/ipirm_simclr_r50/epoch_800.pth', prefix='backbone.'
)
backbone = dict(init_cfg=stage1, **_base_.resnet50)
model = dict(
    type='DistillingClassifier',
    backbone=backbone,
    teacher=dict(
        model=dict(_base_.model, backbone=backbone),
        checkpoint='work_dirs/teacher_r50/epoch_100.pth',
    ),
    distill_losses=[dict(type='OFD', norm_cfg=dict(type='SyncBN'))],
)
custom_hooks = [dict(type='SetEpochHook')]
