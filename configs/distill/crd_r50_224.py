# Report, Table 4, row "CRD, without KL loss", at the resolution of the rows "KL loss":
# 224 pixels, as one of the configs with equal settings (README.md).
_base_ = ['kl_r50.py']

model = dict(distill_losses=[dict(type='CRD')], ce_weight=1.0)
custom_hooks = [*_base_.custom_hooks, dict(type='CRDMemoryHook')]
