# Fashion-MNIST-50, embedded in the package, tinted by a hidden factor: ten colors.
# Colors that do not follow the class, for Stage I and the k-NN monitor.
tint = dict(type='TintByFactor', num_factors=10, follow=0.0, seed=0)
# Meta keys reach the model with each sample: its index, by which partitions are looked up; the
# factor, which only the evaluation reads; and the image's name in files of predictions.
pack = dict(type='PackInputs', meta_keys=('sample_idx', 'factor', 'img_path'))

# No color jitter, because color shall stay a semantic that the encoder entangles.
view_pipeline = [
    dict(type='RandomResizedCrop', scale=28, crop_ratio_range=(0.4, 1.0)),
    dict(type='RandomFlip', prob=0.5),
]
# The loader only reads the images; the model makes the two views of a whole batch at once.
data_preprocessor = dict(
    type='BatchedViews',
    mean=[73.0] * 3,
    std=[90.0] * 3,
    to_rgb=True,
    num_views=2,
    transforms=[view_pipeline],
    channels_last=True,
)
train_pipeline = [tint, {**pack, 'type': 'PackWithSeed'}]
test_pipeline = [tint, pack]

train_dataloader = dict(
    batch_size=256,
    num_workers=0,
    persistent_workers=False,
    drop_last=True,
    sampler=dict(type='DefaultSampler', shuffle=True),
    collate_fn=dict(type='default_collate'),
    dataset=dict(type='FashionMNIST50', split='unlabeled', pipeline=train_pipeline),
)
val_dataloader = dict(
    batch_size=500,
    num_workers=0,
    persistent_workers=False,
    sampler=dict(type='DefaultSampler', shuffle=False),
    collate_fn=dict(type='default_collate'),
    dataset=dict(type='FashionMNIST50', split='val', pipeline=test_pipeline),
)
val_evaluator = dict(type='KNNAccuracy', k=20)
val_cfg = dict()
test_dataloader = dict(
    batch_size=500,
    num_workers=0,
    persistent_workers=False,
    sampler=dict(type='DefaultSampler', shuffle=False),
    collate_fn=dict(type='default_collate'),
    dataset=dict(type='FashionMNIST50', split='test', pipeline=test_pipeline),
)
test_evaluator = val_evaluator
test_cfg = dict()

knn_bank = dict(
    batch_size=500,
    num_workers=0,
    sampler=dict(type='DefaultSampler', shuffle=False),
    collate_fn=dict(type='default_collate'),
    dataset=dict(type='FashionMNIST50', split='train', pipeline=test_pipeline),
)
