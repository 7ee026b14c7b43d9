# Wide-ResNet-101-2, for Stage I, teacher and student.
wide_resnet101 = dict(
    type='ResNet',
    depth=101,
    stem_channels=64,
    base_channels=128,
    expansion=2,
    norm_cfg=dict(type='SyncBN'),
)
