# Glyphs at a laptop's scale, the recipe of ../quickstart/ipirm_simclr_sum.py with the report's
# weight of 0.2: five epochs of plain SimCLR, then one partition into 50 subsets by k-means, which
# does not change any more, and the sum of Eq. 2 over its subsets.
_base_ = [
    '../_base_/datasets/glyphs.py',
    '../_base_/default_runtime.py',
]

model = dict(
    type='IPIRMSimCLR',
    num_subsets=50,
    backbone=dict(type='SmallConvNet', channels=(32, 64, 128), norm_cfg=dict(type='BN')),
    neck=dict(
        type='NonLinearNeck',
        in_channels=128,
        hid_channels=128,
        out_channels=64,
        num_layers=2,
        norm_cfg=dict(type='BN1d'),
        with_last_bn=False,
        with_last_bias=True,
    ),
    head=dict(
        type='IPIRMContrastiveHead',
        objective='report',
        temperature=0.3,
        irm_weight=0.2,
        irm_warmup_epochs=5,
    ),
)

optim_wrapper = dict(type='OptimWrapper', optimizer=dict(type='Adam', lr=1e-3, weight_decay=1e-6))
train_cfg = dict(by_epoch=True, max_epochs=20, val_interval=20)
auto_scale_lr = dict(enable=False, base_batch_size=256)

partition_hook = dict(
    type='PartitionUpdateHook', interval=5, max_partitions=1, solver=dict(strategy='kmeans')
)
knn_hook = dict(
    type='KNNHook',
    interval=5,
    k=20,
    bank_dataloader=_base_.knn_bank,
    query_dataloader=_base_.val_dataloader,
)
custom_hooks = [partition_hook, knn_hook]
default_hooks = dict(logger=dict(interval=5), checkpoint=dict(interval=5, max_keep_ckpts=1))
