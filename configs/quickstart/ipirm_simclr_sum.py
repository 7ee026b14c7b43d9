# Stage I at a laptop's scale, the setting that did best in docs/lab.md: the sum of the report's
# Eq. 2 in place of the mean of Wang et al., so that 50 subsets weigh as much as 50 batches. With
# batch normalization, a lower temperature and smaller crops.
_base_ = ['ipirm_simclr.py']

model = dict(
    num_subsets=50,
    backbone=dict(norm_cfg=dict(type='BN')),
    neck=dict(norm_cfg=dict(_delete_=True, type='BN1d')),
    head=dict(objective='report', temperature=0.3, irm_weight=1.0),
)
view_pipeline = [
    dict(type='RandomResizedCrop', scale=28, crop_ratio_range=(0.3, 1.0)),
    dict(type='RandomFlip', prob=0.5),
]
data_preprocessor = dict(transforms=[view_pipeline])
