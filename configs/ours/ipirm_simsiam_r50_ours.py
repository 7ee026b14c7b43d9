# Our recipe instead of the report's, for the same data: Report, Table 3, row "SimSiam+IP-IRM". 200
# epochs of plain SimSiam, then one partition into 50 subsets by k-means, which is kept, and a
# penalty of weight 2.
# The mean over the subsets, as Wang et al. have it for SimCLR: their sum, as in
# ipirm_simclr_r50_ours.py, was not tried with SimSiam.
_base_ = ['../ipirm_simsiam_r50.py']

model = dict(num_subsets=50, head=dict(irm_weight=2.0, irm_warmup_epochs=200))
custom_hooks = [
    dict(
        type='PartitionUpdateHook',
        interval=200,
        max_partitions=1,
        solver=dict(strategy='kmeans'),
    ),
    _base_.knn_hook,
]
