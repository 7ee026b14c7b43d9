# Report, Table 3, row "SimCLR+IP-IRM": the linear probe of ipirm_simclr_r50.py.
_base_ = ['linear_r50.py']

model = dict(backbone=dict(init_cfg=dict(checkpoint='work_dirs/ipirm_simclr_r50/epoch_800.pth')))
