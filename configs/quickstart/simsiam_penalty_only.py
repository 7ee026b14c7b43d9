# Control: contrastive risk and penalty on the whole batch, no partition. What this gains is not
# the partitions'.
_base_ = ['ipirm_simsiam.py']

model = dict(head=dict(penalise_batch=True))
custom_hooks = [dict(type='PartitionUpdateHook', max_partitions=0), _base_.knn_hook]
