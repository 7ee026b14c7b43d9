# Report, Table 1: Wide-ResNet-101-2 at 330 pixels, 65.00 on the test split (65.57 with TTA). The
# report does not give weights and temperature; these are Tian et al.'s (CRD) for KL.
_base_ = ['../finetune/teacher_wide_resnet101.py']

model = dict(
    type='DistillingClassifier',
    teacher=dict(model=_base_.model, checkpoint='work_dirs/teacher_wide_resnet101/epoch_100.pth'),
    distill_losses=[dict(type='LogitKL', temperature=4.0, loss_weight=0.9)],
    ce_weight=0.1,
)
