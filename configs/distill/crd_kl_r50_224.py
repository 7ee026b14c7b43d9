# Report, Table 4, row "CRD, with KL loss", at the resolution of the rows "KL loss":
# 224 pixels, as one of the configs with equal settings (README.md).
_base_ = ['crd_r50_224.py']

model = dict(distill_losses=[dict(type='CRD'), dict(type='LogitKL', temperature=4.0)])
