# Report, Table 3, row "SimSiam": the linear probe of simsiam_r50.py.
_base_ = ['linear_r50.py']

model = dict(backbone=dict(init_cfg=dict(checkpoint='work_dirs/simsiam_r50/epoch_800.pth')))
