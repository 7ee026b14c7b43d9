# Report, Table 4, row "CRD, without KL loss": 59.92 on the test split. The
# report does not give the resolution, but a range from 300 to 448.
_base_ = ['ofd_r50.py']

model = dict(distill_losses=[dict(type='CRD')])
custom_hooks = [*_base_.custom_hooks, dict(type='CRDMemoryHook')]
