# Report, Table 3, row "SimCLR+IP-IRM", with views made on the GPU: data workers only read the
# images and crop them, which takes a sixth of their time. See docs/stage1.md.
_base_ = ['ipirm_simclr_r50.py']

# All but the crop: flip, colors, gray, blur.
data_preprocessor = dict(type='BatchedViews', transforms=[_base_.view_pipeline[1:]])
crop = dict(type='TorchRandomResizedCrop', scale=224)
train_pipeline = [
    _base_.load,
    dict(type='SeededMultiView', num_views=2, transforms=[[crop]]),
    dict(type='PackWithSeed'),
]
train_dataloader = dict(dataset=dict(pipeline=train_pipeline))
