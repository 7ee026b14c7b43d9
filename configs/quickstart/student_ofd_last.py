# Stage II at a laptop's scale, Table 4's row "OFD, Last feature layer only".
_base_ = ['student_kl.py']

model = dict(distill_losses=[dict(type='OFD', stages='last', kappa=1000)])
