# Stage I at a laptop's scale, our recipe: five epochs of plain SimCLR, then one partition into 20
# subsets by k-means, which does not change any more, and a penalty of weight 2.
_base_ = [
    '../_base_/datasets/fashion_mnist_50.py',
    '../_base_/default_runtime.py',
]

model = dict(
    type='IPIRMSimCLR',
    num_subsets=20,
    backbone=dict(type='SmallConvNet', channels=(32, 64, 128)),
    neck=dict(
        type='NonLinearNeck',
        in_channels=128,
        hid_channels=128,
        out_channels=64,
        num_layers=2,
        norm_cfg=dict(type='GN', num_groups=8),
        with_last_bn=False,
        with_last_bias=True,
    ),
    head=dict(type='IPIRMContrastiveHead', temperature=0.5, irm_weight=2.0, irm_warmup_epochs=5),
)

optim_wrapper = dict(type='OptimWrapper', optimizer=dict(type='Adam', lr=1e-3, weight_decay=1e-6))
train_cfg = dict(by_epoch=True, max_epochs=20, val_interval=20)
auto_scale_lr = dict(enable=False, base_batch_size=256)

partition_hook = dict(
    type='PartitionUpdateHook', interval=5, max_partitions=1, solver=dict(strategy='kmeans')
)
# That of the report's recipe (*_report.py): partitions that maximize Eq. 3 at regular intervals.
report_hook = dict(
    type='PartitionUpdateHook',
    interval=5,
    # Smaller blocks than by default: seconds on two cores.
    solver=dict(strategy='local', irm_weight=0.5, block_size=1000),
)
knn_hook = dict(
    type='KNNHook',
    interval=5,
    k=20,
    bank_dataloader=_base_.knn_bank,
    query_dataloader=_base_.val_dataloader,
)
custom_hooks = [partition_hook, knn_hook]
default_hooks = dict(logger=dict(interval=5), checkpoint=dict(interval=5, max_keep_ckpts=2))
