# ResNet-152 that starts from Stage I.
_base_ = ['classifier_r50.py']

model = dict(
    backbone=dict(
        _delete_=True,
        type='ResNet',
        depth=152,
        norm_cfg=dict(type='SyncBN'),
        init_cfg=dict(
            type='Pretrained',
            checkpoint='work_dirs/ipirm_simclr_resnet152/epoch_800.pth',
            prefix='backbone.',
        ),
    )
)
