# Stage I on SimSiam at a laptop's scale, the report's recipe with the network, temperature and
# crops of ipirm_simsiam_sum.py: K = 2, partitions that maximize Eq. 3, weight 0.2 from the
# start, a new partition at regular intervals, and all partitions kept.
_base_ = ['ipirm_simsiam_sum.py']

model = dict(num_subsets=2, head=dict(irm_weight=0.2, irm_warmup_epochs=0))
custom_hooks = [_base_.report_hook, _base_.knn_hook]
