# Report, Section 4.3: OFD of the last feature layer "works with various backbones", without a
# number. SE-ResNeXt-101 (32x4d) at 330 pixels; kl_seresnext101_330.py is the row of Table 1.
_base_ = ['kl_seresnext101_330.py']

model = dict(
    distill_losses=[dict(type='OFD', stages='last', norm_cfg=dict(type='SyncBN'))],
    ce_weight=1.0,
)
