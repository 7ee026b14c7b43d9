# Glyphs at a laptop's scale, the recipe of ../quickstart/ipirm_simsiam_sum.py: SimSiam, then the
# sum of Eq. 2 over one partition into 50 subsets by k-means, with the small penalty that SimSiam
# bears.
_base_ = ['ipirm_simclr_glyphs.py']

model = dict(
    type='IPIRMSimSiam',
    # Batch normalization in projector and predictor, which SimSiam needs so as not to collapse.
    neck=dict(
        _delete_=True,
        type='NonLinearNeck',
        in_channels=128,
        hid_channels=128,
        out_channels=64,
        num_layers=2,
        norm_cfg=dict(type='BN1d'),
        with_last_bn_affine=False,
    ),
    head=dict(
        type='IPIRMLatentHead',
        similarity='contrast',
        irm_weight=0.05,
        predictor=dict(
            type='NonLinearNeck',
            in_channels=64,
            hid_channels=32,
            out_channels=64,
            norm_cfg=dict(type='BN1d'),
            with_avg_pool=False,
            with_last_bn=False,
            with_last_bias=True,
        ),
    ),
)
