# Report, Table 3, to the letter: the linear probe of report/ipirm_simclr_r50_report.py.
_base_ = ['linear_r50.py']

model = dict(
    backbone=dict(init_cfg=dict(checkpoint='work_dirs/ipirm_simclr_r50_report/epoch_800.pth'))
)
