# Report, Table 4, has no such row: DKD (Zhao et al., 2022), to compare with kl_r50.py. Weights and
# temperature are those of Zhao et al. for ImageNet; without their warm-up of one epoch.
_base_ = ['kl_r50.py']

model = dict(distill_losses=[dict(type='DKD', alpha=1.0, beta=0.5, temperature=1.0)], ce_weight=1)
