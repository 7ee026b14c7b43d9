# Control: SimCLR with MixUp, without partitions and penalty.
_base_ = ['ipirm_simclr_mixup.py']

model = dict(head=dict(irm_weight=0.0))
custom_hooks = [dict(type='PartitionUpdateHook', max_partitions=0), _base_.knn_hook]
