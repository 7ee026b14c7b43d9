# Control: the partition of a method that knows the hidden factor, one subset per kind of font.
_base_ = ['ipirm_simclr_glyphs.py']

model = dict(num_subsets=5)
custom_hooks = [
    dict(
        type='PartitionUpdateHook',
        interval=5,
        max_partitions=1,
        solver=dict(strategy='factor'),
    ),
    _base_.knn_hook,
]
