# Report, Table 4, row "OFD, Last feature layer only", at the resolution of the rows "KL loss":
# 224 pixels, as one of the configs with equal settings (README.md).
_base_ = ['kl_r50.py']

model = dict(
    distill_losses=[dict(type='OFD', stages='last', norm_cfg=dict(type='SyncBN'))],
    ce_weight=1.0,
)
