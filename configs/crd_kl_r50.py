# Report, Table 4, row "CRD, with KL loss": 59.81 on the test split. The
# report does not give the resolution, but a range from 300 to 448.
_base_ = [
    '_base_/models/distill_r50.py',
    '_base_/datasets/vipriors_distill_330.py',
    '_base_/schedules/distill_100e.py',
    '_base_/default_runtime.py',
]

model = dict(distill_losses=[dict(type='CRD'), dict(type='LogitKL', temperature=4.0)])
custom_hooks = [*_base_.custom_hooks, dict(type='CRDMemoryHook')]
