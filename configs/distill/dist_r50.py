# Report, Table 4, has no such row: DIST (Huang et al., 2022), to compare with kl_r50.py. Weights
# and temperature are the defaults of their code.
_base_ = ['kl_r50.py']

model = dict(distill_losses=[dict(type='DIST', beta=1.0, gamma=1.0, temperature=1.0)], ce_weight=1)
