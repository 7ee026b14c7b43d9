# Report, Table 4, row "KL loss, Logits; Resolution 224", with the weights of the other rows: alpha
# and beta are 1 instead of 0.1 and 0.9, as one of the configs with equal settings (README.md).
_base_ = ['kl_r50.py']

model = dict(distill_losses=[dict(type='LogitKL', temperature=4.0)], ce_weight=1.0)
