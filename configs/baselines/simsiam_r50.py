# Report, Table 3, row "SimSiam": the same run without partitions and penalty. Its loss is that of
# MMPretrain's `SimSiam`.
_base_ = ['../ipirm_simsiam_r50.py']

model = dict(head=dict(irm_weight=0.0))
custom_hooks = [dict(type='PartitionUpdateHook', max_partitions=0), _base_.knn_hook]
