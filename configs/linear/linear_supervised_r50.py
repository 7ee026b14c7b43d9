# Report, Table 3, row "Supervised Training": the linear probe of supervised_r50.py. A
# check: a new classifier on the frozen supervised encoder.
_base_ = ['linear_r50.py']

model = dict(backbone=dict(init_cfg=dict(checkpoint='work_dirs/supervised_r50/epoch_100.pth')))
