# Stage II at a laptop's scale, Table 4's row "OFD, Multiple feature layers".
_base_ = ['student_kl.py']

model = dict(distill_losses=[dict(type='OFD', kappa=1000)])
