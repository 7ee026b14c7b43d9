# Report, Table 4, row "OFD, Multiple feature layers": 61.31 on the test split. The
# report does not give the resolution, but a range from 300 to 448.
_base_ = [
    '_base_/models/distill_r50.py',
    '_base_/datasets/vipriors_distill_330.py',
    '_base_/schedules/distill_100e.py',
    '_base_/default_runtime.py',
]

model = dict(distill_losses=[dict(type='OFD', norm_cfg=dict(type='SyncBN'))])
