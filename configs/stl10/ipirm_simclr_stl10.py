# Wang et al.'s script on STL10, without MixUp: K = 2, 400 epochs, weights of the report,
# partitions by their optimizer, the first one before training.
_base_ = [
    '../_base_/models/ipirm_simclr_r50.py',
    '../_base_/datasets/stl10_simclr.py',
    '../_base_/schedules/adam_800e.py',
    '../_base_/default_runtime.py',
]

# 3x3 convolution of stride 1 and no pooling at the input.
model = dict(backbone=dict(type='ResNet_CIFAR'))
train_cfg = dict(max_epochs=400)

knn_hook = dict(
    type='KNNHook',
    interval=25,
    k=200,
    temperature=0.5,
    bank_dataloader=_base_.knn_bank,
    query_dataloader=_base_.val_dataloader,
)
custom_hooks = [
    dict(
        type='PartitionUpdateHook',
        interval=50,
        update_before_train=True,
        solver=dict(strategy='authors', irm_weight=0.5),
    ),
    knn_hook,
]
