# Stage II at a laptop's scale, Table 4's row "KL loss, Feature".
_base_ = ['student_kl.py']

model = dict(distill_losses=[dict(type='FeatureKL', temperature=4.0)])
