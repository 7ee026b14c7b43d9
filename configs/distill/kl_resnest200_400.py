# Report, Table 1: ResNeSt-200 at 400 pixels, 67.90 on the test split (69.17 with TTA). The
# report does not give weights and temperature; these are Tian et al.'s (CRD) for KL.
_base_ = [
    '../_base_/backbones/resnest200.py',
    '../_base_/models/classifier.py',
    '../_base_/datasets/vipriors_distill_400.py',
    '../_base_/schedules/distill_100e.py',
    '../_base_/default_runtime.py',
]

stage1 = dict(
    type='Pretrained',
    checkpoint='work_dirs/ipirm_simclr_resnest200/epoch_800.pth',
    prefix='backbone.',
)
backbone = dict(init_cfg=stage1, **_base_.resnest200)
model = dict(
    type='DistillingClassifier',
    backbone=backbone,
    teacher=dict(
        model=dict(_base_.model, backbone=backbone),
        checkpoint='work_dirs/teacher_resnest200/epoch_100.pth',
    ),
    distill_losses=[dict(type='LogitKL', temperature=4.0, loss_weight=0.9)],
    ce_weight=0.1,
)
custom_hooks = [dict(type='SetEpochHook')]
