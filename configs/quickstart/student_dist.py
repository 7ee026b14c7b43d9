# Stage II at a laptop's scale, not in Table 4: DIST (Huang et al., 2022), with the weights and the
# temperature that its authors' code has by default.
_base_ = ['student_kl.py']

model = dict(distill_losses=[dict(type='DIST', beta=1.0, gamma=1.0, temperature=1.0)])
