# Report, Table 3, row "SimSiam+IP-IRM", by its equations to the letter, see
# ipirm_simclr_r50_report.py. The report has no equation for SimSiam. The trivial partition has
# SimSiam's own loss and the penalty of Eq. 1; in the subsets predictions and projections are
# contrasted by Eq. 1.
_base_ = ['../ipirm_simsiam_r50.py']

model = dict(head=dict(penalty='scalar', objective='report'))
custom_hooks = [
    dict(
        type='PartitionUpdateHook',
        interval=50,
        solver=dict(strategy='authors', irm_weight=0.5, balance='none'),
    ),
    _base_.knn_hook,
]
