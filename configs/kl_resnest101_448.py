# Report, Table 1: ResNeSt-101 at 448 pixels, 65.00 on the test split (65.63 with TTA). The
# report does not give weights and temperature; these are those of CRD's authors for KL.
_base_ = [
    '_base_/models/classifier_resnest101.py',
    '_base_/datasets/vipriors_distill_448.py',
    '_base_/schedules/distill_100e.py',
    '_base_/default_runtime.py',
]

model = dict(
    type='DistillingClassifier',
    teacher=dict(model=_base_.model, checkpoint='work_dirs/teacher_resnest101/epoch_100.pth'),
    distill_losses=[dict(type='LogitKL', temperature=4.0, loss_weight=0.9)],
    ce_weight=0.1,
)
