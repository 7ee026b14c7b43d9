# Control: contrastive risk and penalty of ../ipirm_simsiam_r50.py on the whole batch, without
# partitions; the penalty has weight 0.2. What this gains over SimSiam in the report's Table 3 is
# not due to the partitions.
_base_ = ['../ipirm_simsiam_r50.py']

model = dict(head=dict(penalize_batch=True))
custom_hooks = [dict(type='PartitionUpdateHook', max_partitions=0), _base_.knn_hook]
