# Control: ../ipirm_simclr_r50.py with random partitions into two subsets of equal size, as often.
# What this gains over SimCLR in the report's Table 3 is not due to what the partitions are.
_base_ = ['../ipirm_simclr_r50.py']

custom_hooks = [
    dict(type='PartitionUpdateHook', interval=50, solver=dict(strategy='random')),
    _base_.knn_hook,
]
