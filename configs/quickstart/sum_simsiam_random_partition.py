# Control: ipirm_simsiam_sum.py with a random partition into 50 subsets of equal size.
_base_ = ['ipirm_simsiam_sum.py']

custom_hooks = [{**_base_.partition_hook, 'solver': dict(strategy='random')}, _base_.knn_hook]
