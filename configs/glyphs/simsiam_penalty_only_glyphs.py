# Control: contrast and penalty on the whole batch, without partitions. What this gains over
# SimSiam is not due to the partitions. Weight: that of ../quickstart/sum_simsiam_penalty_only.py.
_base_ = ['ipirm_simsiam_glyphs.py']

model = dict(head=dict(objective='authors', penalize_batch=True, irm_weight=0.2))
custom_hooks = [dict(type='PartitionUpdateHook', max_partitions=0), _base_.knn_hook]
