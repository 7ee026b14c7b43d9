# Control: ipirm_simsiam_sum.py without the penalty: the contrast within the subsets alone.
_base_ = ['ipirm_simsiam_sum.py']

model = dict(head=dict(irm_weight=0.0))
