# Control: the penalty of ../ipirm_simclr_r50.py, of weight 0.2, on the whole batch, without
# partitions. What this gains over SimCLR in the report's Table 3 is not due to the partitions.
_base_ = ['../ipirm_simclr_r50.py']

model = dict(head=dict(penalize_batch=True))
custom_hooks = [dict(type='PartitionUpdateHook', max_partitions=0), _base_.knn_hook]
