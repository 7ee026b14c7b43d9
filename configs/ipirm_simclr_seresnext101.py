# Report, Section 4.2: Stage I of SE-ResNeXt-101 (32x4d), for the students of Table 1.
_base_ = ['ipirm_simclr_r50.py']

model = dict(
    backbone=dict(
        _delete_=True,
        type='SEResNeXt',
        depth=101,
        groups=32,
        width_per_group=4,
        norm_cfg=dict(type='SyncBN'),
    )
)
