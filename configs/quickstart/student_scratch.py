# Control: the student at a laptop's scale from scratch, without teacher; label smoothing as in the
# report.
_base_ = ['supervised.py']

model = dict(
    backbone=dict(norm_cfg=dict(type='BN')),
    head=dict(loss=dict(type='LabelSmoothLoss', label_smooth_val=0.1)),
)
