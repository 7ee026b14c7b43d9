# Control: ipirm_simsiam_sum.py by a method that knows the hidden factor, one subset per color.
_base_ = ['ipirm_simsiam_sum.py']

model = dict(num_subsets=10)
custom_hooks = [{**_base_.partition_hook, 'solver': dict(strategy='factor')}, _base_.knn_hook]
