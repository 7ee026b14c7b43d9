# ResNet-50 with the projector of Wang et al.'s code: 2048 -> 512 (no bias, BN, ReLU) -> 128.
_base_ = ['../backbones/resnet50.py']

model = dict(
    type='IPIRMSimCLR',
    num_subsets=2,
    backbone=dict(zero_init_residual=True, **_base_.resnet50),
    neck=dict(
        type='NonLinearNeck',
        in_channels=2048,
        hid_channels=512,
        out_channels=128,
        num_layers=2,
        with_last_bn=False,
        with_last_bias=True,
        with_avg_pool=True,
    ),
    head=dict(type='IPIRMContrastiveHead', temperature=0.5, irm_weight=0.2),
)
