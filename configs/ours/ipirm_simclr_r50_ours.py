# Our recipe instead of the report's, for the same data: Report, Table 3, row "SimCLR+IP-IRM". 200
# epochs of plain SimCLR, then one partition into 50 subsets by k-means, which is kept, and a
# penalty of weight 2.
# The laptop's quickstart (../quickstart/ipirm_simclr.py) has the same warm-up, a quarter of the
# run, and the same weight, with 20 subsets of a fifth of the images. Nothing was tuned at this
# scale.
# A subset needs two images in the batch of all GPUs to add anything. 256 images in 50 subsets are
# five per subset, and 3.5 % of equal subsets have fewer than two; of 100 subsets 27 % would.
# So keep the batch of 256: on fewer than 8 GPUs set train_dataloader.batch_size to 256 / GPUs.
_base_ = ['../ipirm_simclr_r50.py']

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
