# Report, Table 4, row "KL loss, Feature; Resolution 224": 58.70 on the test split.
_base_ = [
    '_base_/models/distill_r50.py',
    '_base_/datasets/vipriors_distill.py',
    '_base_/schedules/distill_100e.py',
    '_base_/default_runtime.py',
]

model = dict(distill_losses=[dict(type='FeatureKL', temperature=4.0)])
