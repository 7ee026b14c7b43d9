# SE-ResNeXt-101 (32x4d), for Stage I, teacher and student.
seresnext101 = dict(
    type='SEResNeXt', depth=101, groups=32, width_per_group=4, norm_cfg=dict(type='SyncBN')
)
