# Our recipe, against Report, Table 3: the linear probe of ours/ipirm_simclr_r50_ours.py.
_base_ = ['linear_r50.py']

model = dict(
    backbone=dict(init_cfg=dict(checkpoint='work_dirs/ipirm_simclr_r50_ours/epoch_800.pth'))
)
