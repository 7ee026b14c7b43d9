# ResNet-50 that learns from a ResNet-50.
_base_ = ['classifier_r50.py']

model = dict(
    type='DistillingClassifier',
    teacher=dict(model=_base_.model, checkpoint='work_dirs/teacher_r50/epoch_100.pth'),
)
