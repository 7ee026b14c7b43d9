# Report, Table 4, row "CRD, with KL loss": 59.81 on the test split. The
# report does not give the resolution, but a range from 300 to 448.
_base_ = ['crd_r50.py']

model = dict(distill_losses=[dict(type='CRD'), dict(type='LogitKL', temperature=4.0)])
