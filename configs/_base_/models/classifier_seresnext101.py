# SE-ResNeXt-101 (32x4d) that starts from Stage I.
_base_ = ['classifier_r50.py']

model = dict(
    backbone=dict(
        _delete_=True,
        type='SEResNeXt',
        depth=101,
        groups=32,
        width_per_group=4,
        norm_cfg=dict(type='SyncBN'),
        init_cfg=dict(
            type='Pretrained',
            checkpoint='work_dirs/ipirm_simclr_seresnext101/epoch_800.pth',
            prefix='backbone.',
        ),
    )
)
