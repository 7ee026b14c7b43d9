# Control: the warm-up and the penalty of ipirm_simclr_r50_ours.py on the whole batch, without
# a partition. What this gains is not due to the partition.
_base_ = ['ipirm_simclr_r50_ours.py']

model = dict(head=dict(penalize_batch=True))
custom_hooks = [dict(type='PartitionUpdateHook', max_partitions=0), _base_.knn_hook]
