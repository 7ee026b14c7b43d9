# Wang et al.'s script on CIFAR-100 with MixUp, like ../stl10/ipirm_simclr_mixup_stl10.py. Their
# partitions are found online: new views, mixed with new partners (--mixup_max), in each of 31
# epochs of the optimizer, blocks of 2048, and the temperature of the training in the penalty too.
# So they are here, with two differences. Their objective is infinite for a partition that
# separates an image from its partner, and averages queries before it weights them; ours is that of
# soft_mixup_objective. Their optimizer starts at a rate of 0.1, with steps after epochs 5 and 25;
# ours at 0.5, as in their script for STL10.
_base_ = ['ipirm_simclr_cifar100.py']

model = dict(
    type='IPIRMSimCLRMixUp', head=dict(type='IPIRMMixUpHead', temperature=0.2, lam='mean')
)

# Their k-NN has the temperature of the training.
knn_hook = dict(temperature=0.2)
custom_hooks = [
    dict(
        type='PartitionUpdateHook',
        interval=50,
        update_before_train=True,
        num_augmentations=31,
        mixup=True,
        solver=dict(strategy='authors', irm_weight=0.5, epochs=31, block_size=2048),
    ),
    {**_base_.knn_hook, **knn_hook},
]
