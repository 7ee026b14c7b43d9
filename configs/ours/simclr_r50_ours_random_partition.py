# Control: ipirm_simclr_r50_ours.py with a random partition into 50 subsets of equal size.
_base_ = ['ipirm_simclr_r50_ours.py']

custom_hooks = [
    dict(
        type='PartitionUpdateHook',
        interval=200,
        max_partitions=1,
        solver=dict(strategy='random'),
    ),
    _base_.knn_hook,
]
