# Wide-ResNet-101-2 that starts from Stage I.
_base_ = ['classifier_r50.py']

model = dict(
    backbone=dict(
        _delete_=True,
        type='ResNet',
        depth=101,
        stem_channels=64,
        base_channels=128,
        expansion=2,
        norm_cfg=dict(type='SyncBN'),
        init_cfg=dict(
            type='Pretrained',
            checkpoint='work_dirs/ipirm_simclr_wide_resnet101/epoch_800.pth',
            prefix='backbone.',
        ),
    )
)
