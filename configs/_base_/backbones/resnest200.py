# ResNeSt-200, for Stage I, teacher and student.
resnest200 = dict(type='ResNeSt', depth=200, stem_channels=128, norm_cfg=dict(type='SyncBN'))
