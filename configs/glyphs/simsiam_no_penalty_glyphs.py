# Control: ipirm_simsiam_glyphs.py without the penalty: the contrast within the subsets alone.
_base_ = ['ipirm_simsiam_glyphs.py']

model = dict(head=dict(irm_weight=0.0))
