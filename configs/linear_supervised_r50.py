# Report, Table 3, row "Supervised Training": the linear probe of supervised_r50.py. A
# check: the supervised encoder with its classifier fitted anew.
_base_ = ['linear_r50.py']

model = dict(backbone=dict(init_cfg=dict(checkpoint='work_dirs/supervised_r50/epoch_100.pth')))
