# Control: ipirm_simsiam_sum.py with contrast and penalty on the whole batch alone, without
# partitions. What this gains is not due to the partitions. Weight: the best of 0.2, 2 and 10.
_base_ = ['ipirm_simsiam_sum.py']

model = dict(head=dict(objective='authors', penalize_batch=True, irm_weight=0.2))
custom_hooks = [dict(type='PartitionUpdateHook', max_partitions=0), _base_.knn_hook]
