# Control: contrastive risk and penalty of ipirm_simsiam_r50_ours.py on the whole batch, after the
# same warm-up, without a partition. What this gains is not due to the partition.
_base_ = ['ipirm_simsiam_r50_ours.py']

model = dict(head=dict(penalize_batch=True))
custom_hooks = [dict(type='PartitionUpdateHook', max_partitions=0), _base_.knn_hook]
