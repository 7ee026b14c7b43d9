# ResNeSt-101, for Stage I, teacher and student.
resnest101 = dict(type='ResNeSt', depth=101, stem_channels=128, norm_cfg=dict(type='SyncBN'))
