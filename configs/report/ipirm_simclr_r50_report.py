# Report, Table 3, row "SimCLR+IP-IRM", by its equations to the letter: Step 1 is Eq. 2 as a sum
# with a scalar dummy, over all partitions, the trivial one included. Step 2 is Eq. 3 by
# back-propagation on a continuous partition, which is then thresholded. The report does not give
# the optimizer of Step 2; it is that of Wang et al.'s code (IP-IRM, NeurIPS 2021), with its early
# stop. Eq. 3 has no term for the sizes of the subsets, which their code has (balance='relaxed').
# ../ipirm_simclr_r50.py is the same run with the terms of their code, to which the published
# weights 0.2 and 0.5 belong. 8 GPUs of 32 images each.
_base_ = ['../ipirm_simclr_r50.py']

model = dict(head=dict(penalty='scalar', objective='report'))
custom_hooks = [
    dict(
        type='PartitionUpdateHook',
        interval=50,
        solver=dict(strategy='authors', irm_weight=0.5, balance='none'),
    ),
    _base_.knn_hook,
]
