# Control: the partition of a method that knows the hidden factor, one subset per kind of font.
_base_ = ['ipirm_simclr_glyphs.py']

model = dict(num_subsets=5)
custom_hooks = [{**_base_.partition_hook, 'solver': dict(strategy='factor')}, _base_.knn_hook]
