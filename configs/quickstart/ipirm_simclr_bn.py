# Stage I at a laptop's scale for the students beside this file: ipirm_simclr.py with batch
# normalisation in the encoder, from which OFD takes its margins.
_base_ = ['ipirm_simclr.py']

model = dict(backbone=dict(norm_cfg=dict(type='BN')))
