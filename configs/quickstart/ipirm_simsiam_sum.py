# Stage I on SimSiam at a laptop's scale with the sum of the report's Eq. 2 over 50 subsets, as
# ipirm_simclr_sum.py on SimCLR: batch normalization, a lower temperature and smaller crops. The
# weight of the penalty is small: more does harm, and none does as well (docs/stage1.md).
_base_ = ['ipirm_simsiam.py']

model = dict(
    num_subsets=50,
    backbone=dict(norm_cfg=dict(type='BN')),
    head=dict(objective='report', temperature=0.3, irm_weight=0.05),
)
view_pipeline = [
    dict(type='RandomResizedCrop', scale=28, crop_ratio_range=(0.3, 1.0)),
    dict(type='RandomFlip', prob=0.5),
]
data_preprocessor = dict(transforms=[view_pipeline])
