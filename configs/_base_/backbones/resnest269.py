# ResNeSt-269, for Stage I, teacher and student.
resnest269 = dict(type='ResNeSt', depth=269, stem_channels=128, norm_cfg=dict(type='SyncBN'))
