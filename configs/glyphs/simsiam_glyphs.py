# Control: plain SimSiam.
_base_ = ['ipirm_simsiam_glyphs.py']

model = dict(head=dict(irm_weight=0.0))
custom_hooks = [dict(type='PartitionUpdateHook', max_partitions=0), _base_.knn_hook]
