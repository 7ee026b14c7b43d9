# ResNet-50 with SimSiam's projector and predictor, and the report's latent dimension of 128.
_base_ = ['../backbones/resnet50.py']

model = dict(
    type='IPIRMSimSiam',
    num_subsets=2,
    backbone=dict(zero_init_residual=True, **_base_.resnet50),
    neck=dict(
        type='NonLinearNeck',
        in_channels=2048,
        hid_channels=2048,
        out_channels=128,
        num_layers=3,
        with_last_bn_affine=False,
        with_avg_pool=True,
    ),
    head=dict(
        type='IPIRMLatentHead',
        similarity='contrast',
        temperature=0.5,
        irm_weight=0.2,
        predictor=dict(
            type='NonLinearNeck',
            in_channels=128,
            hid_channels=512,
            out_channels=128,
            with_avg_pool=False,
            with_last_bn=False,
            with_last_bias=True,
        ),
    ),
)
