# Control: contrastive risk and penalty of ipirm_simsiam_r50_ours.py on the whole batch, after the
# same warm-up, without a partition. What this gains is not due to the partition. Weight: that of
# ../quickstart/sum_simsiam_penalty_only.py. Of no partition objective='report' has no contrast.
_base_ = ['ipirm_simsiam_r50_ours.py']

model = dict(head=dict(objective='authors', penalize_batch=True, irm_weight=0.2))
custom_hooks = [dict(type='PartitionUpdateHook', max_partitions=0), _base_.knn_hook]
