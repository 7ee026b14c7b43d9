# Report, Section 4.3: OFD of the last feature layer "works with various backbones", without a
# number. ResNeSt-200 at 320 pixels; kl_resnest200_320.py is the row of Table 1.
_base_ = ['kl_resnest200_320.py']

model = dict(
    distill_losses=[dict(type='OFD', stages='last', norm_cfg=dict(type='SyncBN'))],
    ce_weight=1.0,
)
