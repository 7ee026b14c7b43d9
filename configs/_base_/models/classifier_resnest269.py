# ResNeSt-269 that starts from Stage I.
_base_ = ['classifier_r50.py']

model = dict(
    backbone=dict(
        _delete_=True,
        type='ResNeSt',
        depth=269,
        stem_channels=128,
        norm_cfg=dict(type='SyncBN'),
        init_cfg=dict(
            type='Pretrained',
            checkpoint='work_dirs/ipirm_simclr_resnest269/epoch_800.pth',
            prefix='backbone.',
        ),
    )
)
