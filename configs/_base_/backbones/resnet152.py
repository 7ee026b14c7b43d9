# ResNet-152, for Stage I, teacher and student.
resnet152 = dict(type='ResNet', depth=152, norm_cfg=dict(type='SyncBN'))
