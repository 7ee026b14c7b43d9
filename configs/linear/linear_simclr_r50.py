# Report, Table 3, row "SimCLR": the linear probe of simclr_r50.py.
_base_ = ['linear_r50.py']

model = dict(backbone=dict(init_cfg=dict(checkpoint='work_dirs/simclr_r50/epoch_800.pth')))
