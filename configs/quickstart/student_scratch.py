# Control: the student at a laptop's scale from scratch, without teacher, with the report's label
# smoothing.
_base_ = ['supervised.py']

model = dict(head=dict(loss=dict(type='LabelSmoothLoss', label_smooth_val=0.1)))
