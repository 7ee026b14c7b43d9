# Stage I on SimSiam at a laptop's scale, our recipe (see ipirm_simclr.py): a warm-up, then one
# partition into 20 subsets by k-means and a penalty of weight 2. The risk of a subset is the
# contrastive risk of predictions and projections (similarity='contrast').
_base_ = ['ipirm_simclr.py']

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
