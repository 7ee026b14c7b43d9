# Control: the penalty on the whole batch, without partitions. What this gains is not due to the
# partitions.
_base_ = ['ipirm_simclr_glyphs.py']

model = dict(head=dict(penalize_batch=True))
custom_hooks = [dict(type='PartitionUpdateHook', max_partitions=0), _base_.knn_hook]
