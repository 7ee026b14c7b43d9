# Report, Table 4, row "KL loss, Feature; Resolution 224": 58.70 on the test split.
_base_ = ['../finetune/teacher_r50.py']

model = dict(
    type='DistillingClassifier',
    teacher=dict(model=_base_.model, checkpoint='work_dirs/teacher_r50/epoch_100.pth'),
    distill_losses=[dict(type='FeatureKL', temperature=4.0)],
)
