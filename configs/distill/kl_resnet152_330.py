# Report, Table 1: ResNet-152 at 330 pixels, 65.00 on the test split (65.53 with TTA). The
# report does not give weights and temperature; these are Tian et al.'s (CRD) for KL.
_base_ = ['../finetune/teacher_resnet152.py']

model = dict(
    type='DistillingClassifier',
    teacher=dict(model=_base_.model, checkpoint='work_dirs/teacher_resnet152/epoch_100.pth'),
    distill_losses=[dict(type='LogitKL', temperature=4.0, loss_weight=0.9)],
    ce_weight=0.1,
)
