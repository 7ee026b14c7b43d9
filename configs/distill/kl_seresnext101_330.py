# Report, Table 1: SE-ResNeXt-101 (32x4d) at 330 pixels, 66.40 on the test split (67.80 with TTA).
# The report does not give weights and temperature; these are Tian et al.'s (CRD) for KL.
_base_ = ['../finetune/teacher_seresnext101.py']

model = dict(
    type='DistillingClassifier',
    teacher=dict(model=_base_.model, checkpoint='work_dirs/teacher_seresnext101/epoch_100.pth'),
    distill_losses=[dict(type='LogitKL', temperature=4.0, loss_weight=0.9)],
    ce_weight=0.1,
)
