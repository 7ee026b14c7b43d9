# Stage I at a laptop's scale for the students in this folder: ipirm_simclr.py with batch
# normalization in the encoder, which OFD needs for its margins.
_base_ = ['ipirm_simclr.py']

model = dict(backbone=dict(norm_cfg=dict(type='BN')))
