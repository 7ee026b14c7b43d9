# Wang et al.'s script on CIFAR-100 with MixUp, baseline: without partitions and penalty. The
# temperature is 0.2, as in ../stl10/simclr_mixup_stl10.py; for theirs, set
# model.head.temperature=0.5.
_base_ = ['ipirm_simclr_mixup_cifar100.py']

model = dict(head=dict(irm_weight=0.0))
custom_hooks = [dict(type='PartitionUpdateHook', max_partitions=0), _base_.knn_hook]
