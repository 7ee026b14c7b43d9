# Table 3's row "Supervised Training" at a laptop's scale: from scratch, on the labeled images.
_base_ = ['../_base_/datasets/fashion_mnist_50.py', '../_base_/default_runtime.py']

model = dict(
    type='ImageClassifier',
    backbone=dict(type='SmallConvNet', channels=(32, 64, 128), norm_cfg=dict(type='BN')),
    neck=dict(type='GlobalAveragePooling'),
    head=dict(
        type='LinearClsHead',
        num_classes=10,
        in_channels=128,
        loss=dict(type='CrossEntropyLoss'),
    ),
)
# One view, augmented as in Stage I.
data_preprocessor = dict(
    _delete_=True,
    type='ClsBatchedViews',
    num_classes=10,
    mean=[73.0] * 3,
    std=[90.0] * 3,
    to_rgb=True,
    transforms=_base_.view_pipeline,
    channels_last=True,
)
train_dataloader = dict(batch_size=64, dataset=dict(split='train'))
val_evaluator = dict(_delete_=True, type='Accuracy')
test_evaluator = val_evaluator

# Tells the pipeline the epoch, which the draws of an image depend on.
custom_hooks = [dict(type='SetEpochHook')]
# The best rate of 1e-3 to 1e-1 for students from scratch and from Stage I: docs/stage2.md.
optim_wrapper = dict(type='OptimWrapper', optimizer=dict(type='Adam', lr=3e-2))
param_scheduler = [dict(type='CosineAnnealingLR', T_max=100, by_epoch=True)]
train_cfg = dict(by_epoch=True, max_epochs=100, val_interval=20)
auto_scale_lr = dict(enable=False, base_batch_size=64)
default_hooks = dict(logger=dict(interval=5), checkpoint=dict(interval=100, max_keep_ckpts=2))
