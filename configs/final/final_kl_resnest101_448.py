# Report, Section 4.1: train and val may both be trained on for the final submission. This is the
# member kl_resnest101_448.py of the ensemble in Table 2, on both. Its work folder is its own,
# so that the model of train alone stays, with which the weights of the ensemble are fitted.
#   bash tools/dist_train.sh configs/final/final_kl_resnest101_448.py 8
# README.md says what it starts from.
_base_ = ['../distill/kl_resnest101_448.py']

train_dataloader = dict(dataset=dict(split=['train', 'val']))
# All images with labels are trained on, so there is no accuracy to report.
val_dataloader = None
val_evaluator = None
val_cfg = None
# The challenge's test split, which has no labels: tools/test.py writes predictions with --out.
test_dataloader = dict(dataset=dict(split='test'))
