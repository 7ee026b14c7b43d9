# Report, Table 3, row "SimSiam+IP-IRM": Stage I on 8 GPUs of 32 images each. On 1 or 4 GPUs add
# --auto-scale-lr.
_base_ = [
    '_base_/models/ipirm_simsiam_r50.py',
    '_base_/datasets/vipriors_simsiam.py',
    '_base_/schedules/adam_800e.py',
    '_base_/default_runtime.py',
]

knn_hook = dict(
    type='KNNHook',
    interval=25,
    bank_dataloader=_base_.knn_bank,
    query_dataloader=_base_.val_dataloader,
)
custom_hooks = [
    dict(type='PartitionUpdateHook', interval=50, solver=dict(strategy='local', irm_weight=0.5)),
    knn_hook,
]
