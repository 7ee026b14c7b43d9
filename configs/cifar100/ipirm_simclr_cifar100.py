# Wang et al.'s script on CIFAR-100, without MixUp: K = 2, 400 epochs, weights 0.2 in Step 1 and
# 0.2 in Step 2 (the report and their script on STL10 have 0.5 in Step 2), partitions by their
# optimizer, the first one before training.
_base_ = [
    '../_base_/models/ipirm_simclr_r50.py',
    '../_base_/datasets/cifar100_simclr.py',
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
        solver=dict(strategy='authors', irm_weight=0.2),
    ),
    knn_hook,
]
