# Report, Table 3, row "SimCLR": the same run without partitions and penalty. Its loss and
# gradient are those of MMPretrain's `SimCLR`, except that MMPretrain's gradient shrinks with the
# number of GPUs.
_base_ = ['../ipirm_simclr_r50.py']

model = dict(head=dict(irm_weight=0.0))
custom_hooks = [dict(type='PartitionUpdateHook', max_partitions=0), _base_.knn_hook]
