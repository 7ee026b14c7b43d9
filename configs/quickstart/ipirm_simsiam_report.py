# Stage I on SimSiam at a laptop's scale, the report's recipe (see ipirm_simclr_report.py).
_base_ = ['ipirm_simsiam.py']

model = dict(num_subsets=2, head=dict(irm_weight=0.2, irm_warmup_epochs=0))
custom_hooks = [_base_.report_hook, _base_.knn_hook]
