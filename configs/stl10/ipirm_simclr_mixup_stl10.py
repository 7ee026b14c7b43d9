# Wang et al.'s script on STL10 with MixUp, their best result: 88.26 % by a linear probe after 400
# epochs, not reproduced here. It is ipirm_simclr_stl10.py with other images, loss and temperature.
# Partitions are found from images that are not mixed, with a temperature of 0.5 for the penalty;
# the penalty of the training has that of the loss.
# Theirs to the letter is lam='mean'; the default, 'sample', weights each query by its own share.
# Ours: the subsets of a partition pass in one batch, theirs one by one. This moves batch
# normalization. Their script with five partitions is max_partitions_kept=5.
_base_ = ['ipirm_simclr_stl10.py']

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
        solver=dict(strategy='authors', irm_weight=0.5, irm_temperature=0.5),
    ),
    {**_base_.knn_hook, **knn_hook},
]
