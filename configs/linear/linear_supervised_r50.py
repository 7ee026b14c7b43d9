# Control: a new classifier on the frozen encoder of ../baselines/supervised_r50.py, to check the
# linear probe: it should not be far from the accuracy of that run, which is the report's Table 3,
# row "Supervised Training". This config stands for no row.
_base_ = ['linear_r50.py']

model = dict(backbone=dict(init_cfg=dict(checkpoint='work_dirs/supervised_r50/epoch_100.pth')))
