# Wang et al.'s script on STL10 with MixUp, baseline: without partitions and penalty. Their command
# leaves the temperature of the baseline at 0.5. Here it is 0.2, so that only partitions and
# penalty differ from ipirm_simclr_mixup_stl10.py; for theirs, set model.head.temperature=0.5.
_base_ = ['ipirm_simclr_mixup_stl10.py']

model = dict(head=dict(irm_weight=0.0))
custom_hooks = [dict(type='PartitionUpdateHook', max_partitions=0), _base_.knn_hook]
