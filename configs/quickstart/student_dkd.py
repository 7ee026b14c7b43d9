# Stage II at a laptop's scale, not in Table 4: DKD (Zhao et al., 2022), with the weights and the
# temperature that its authors have for CIFAR-100.
_base_ = ['student_kl.py']

model = dict(distill_losses=[dict(type='DKD', alpha=1.0, beta=8.0, temperature=4.0)])
