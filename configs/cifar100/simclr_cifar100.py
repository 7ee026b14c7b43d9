# Wang et al.'s script on CIFAR-100, baseline: SimCLR, without partitions and penalty.
_base_ = ['ipirm_simclr_cifar100.py']

model = dict(head=dict(irm_weight=0.0))
custom_hooks = [dict(type='PartitionUpdateHook', max_partitions=0), _base_.knn_hook]
