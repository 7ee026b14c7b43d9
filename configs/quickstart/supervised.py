# Table 3's row "Supervised Training" at a laptop's scale: from scratch, on the labeled images.
_base_ = ['../_base_/datasets/fashion_mnist_50.py', '../_base_/default_runtime.py']

model = dict(
    type='ImageClassifier',
    backbone=dict(type='SmallConvNet', channels=(32, 64, 128)),
    neck=dict(type='GlobalAveragePooling'),
    head=dict(
        type='LinearClsHead',
        num_classes=10,
        in_channels=128,
        loss=dict(type='CrossEntropyLoss'),
    ),
)
data_preprocessor = dict(
    _delete_=True, num_classes=10, mean=[73.0] * 3, std=[90.0] * 3, to_rgb=True
)
# One view, augmented as in Stage I.
train_pipeline = [_base_.tint, *_base_.view_pipeline, _base_.pack]
train_dataloader = dict(batch_size=64, dataset=dict(split='train', pipeline=train_pipeline))
val_evaluator = dict(_delete_=True, type='Accuracy')
test_evaluator = val_evaluator

optim_wrapper = dict(type='OptimWrapper', optimizer=dict(type='Adam', lr=1e-3))
param_scheduler = [dict(type='CosineAnnealingLR', T_max=100, by_epoch=True)]
train_cfg = dict(by_epoch=True, max_epochs=100, val_interval=20)
auto_scale_lr = dict(enable=False, base_batch_size=64)
default_hooks = dict(logger=dict(interval=5), checkpoint=dict(interval=100, max_keep_ckpts=1))
