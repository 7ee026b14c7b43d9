# Stage II at a laptop's scale, Table 4's row "CRD without KL loss". Of the 450 images of
# other classes 256 are drawn.
_base_ = ['student_kl.py']

model = dict(distill_losses=[dict(type='CRD', num_negatives=256)])
custom_hooks = [*_base_.custom_hooks, dict(type='CRDMemoryHook')]
