# Report, Section 4.2: Stage I of Wide-ResNet-101-2, for the students of Table 1.
_base_ = ['ipirm_simclr_r50.py']

model = dict(
    backbone=dict(
        _delete_=True,
        type='ResNet',
        depth=101,
        stem_channels=64,
        base_channels=128,
        expansion=2,
        norm_cfg=dict(type='SyncBN'),
    )
)
