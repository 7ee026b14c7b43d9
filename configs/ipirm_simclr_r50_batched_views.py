# Report, Table 3, row "SimCLR+IP-IRM", with views made on the GPU: data workers only read the
# images and crop them, which takes a sixth of their time. See docs/stage1.md.
_base_ = ['ipirm_simclr_r50.py']

data_preprocessor = dict(
    _delete_=True,
    type='BatchedViews',
    mean=[123.675, 116.28, 103.53],
    std=[58.395, 57.12, 57.375],
    to_rgb=True,
    transforms=[_base_.view_pipeline[1:]],  # flip, colors, gray, blur
)
crop = dict(type='TorchRandomResizedCrop', scale=224)
train_pipeline = [
    _base_.load,
    dict(type='SeededMultiView', num_views=2, transforms=[[crop]]),
    dict(type='PackWithSeed'),
]
train_dataloader = dict(dataset=dict(pipeline=train_pipeline))
