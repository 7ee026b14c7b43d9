# Report, Table 4, row "KL loss, Logits; Resolution 224": 60.00 on the test split.
_base_ = ['../finetune/teacher_r50.py']

model = dict(
    type='DistillingClassifier',
    teacher=dict(model=_base_.model, checkpoint='work_dirs/teacher_r50/epoch_100.pth'),
    distill_losses=[dict(type='LogitKL', temperature=4.0, loss_weight=0.9)],
    ce_weight=0.1,
)
