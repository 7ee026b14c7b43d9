# Stage I on SimSiam at a laptop's scale, the report's recipe (see ipirm_simclr_report.py).
_base_ = ['ipirm_simsiam.py']

model = dict(num_subsets=2, head=dict(irm_weight=0.2, irm_warmup_epochs=0))
custom_hooks = [
    dict(
        type='PartitionUpdateHook',
        interval=5,
        solver=dict(strategy='local', irm_weight=0.5, block_size=1000),
    ),
    _base_.knn_hook,
]
