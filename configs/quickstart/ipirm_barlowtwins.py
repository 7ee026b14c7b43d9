# Stage I on Barlow Twins at a laptop's scale, our recipe (see ipirm_simclr.py): a warm-up, then
# one partition into 20 subsets by k-means and a penalty of weight 2. The report has no Barlow
# Twins. The risk of a subset is the contrastive risk of the projections.
_base_ = ['ipirm_simclr.py']

model = dict(
    type='IPIRMBarlowTwins',
    # Batch normalization, but not of the projections: the head has that.
    neck=dict(norm_cfg=dict(_delete_=True, type='BN1d')),
    head=dict(type='IPIRMCrossCorrelationHead', in_channels=64),
)
