# Control: ipirm_simclr.py with a random partition into subsets of equal size.
_base_ = ['ipirm_simclr.py']

custom_hooks = [{**_base_.partition_hook, 'solver': dict(strategy='random')}, _base_.knn_hook]
