# Control: ipirm_simsiam_glyphs.py with a random partition into 50 subsets of equal size.
_base_ = ['ipirm_simsiam_glyphs.py']

custom_hooks = [{**_base_.partition_hook, 'solver': dict(strategy='random')}, _base_.knn_hook]
