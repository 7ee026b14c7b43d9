# Control: ipirm_simclr_sum.py with a random partition into 50 subsets of equal size.
_base_ = ['ipirm_simclr_sum.py']

custom_hooks = [
    dict(
        type='PartitionUpdateHook',
        interval=5,
        max_partitions=1,
        solver=dict(strategy='random'),
    ),
    _base_.knn_hook,
]
