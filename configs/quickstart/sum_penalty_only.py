# Control: ipirm_simclr_sum.py with the penalty on the whole batch alone, without partitions. Eq. 2
# has it on the batch anyway. What this gains is not due to the partitions. In docs/lab.md this
# control does best at a weight of 8 (--cfg-options model.head.irm_weight=8).
_base_ = ['ipirm_simclr_sum.py']

custom_hooks = [dict(type='PartitionUpdateHook', max_partitions=0), _base_.knn_hook]
