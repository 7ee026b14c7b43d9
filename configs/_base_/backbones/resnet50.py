# ResNet-50, for Stage I, teacher and student.
resnet50 = dict(type='ResNet', depth=50, norm_cfg=dict(type='SyncBN'))
