# Letters and digits of many fonts; the hidden factor is the kind of the font, see docs/data.md.
# Meta keys reach the model with each sample: its index, by which partitions are looked up; the
# factor, which only the evaluation reads; and the image's name in files of predictions.
pack = dict(type='PackInputs', meta_keys=('sample_idx', 'factor', 'img_path'))

# No flip: the mirror image of a letter is another letter, or none.
view_pipeline = [
    dict(type='RandomResizedCrop', scale=28, crop_ratio_range=(0.4, 1.0)),
]
# The loader only reads the images; the model makes the two views of a whole batch at once.
data_preprocessor = dict(
    type='BatchedViews',
    mean=[23.0] * 3,
    std=[66.0] * 3,
    to_rgb=True,
    num_views=2,
    transforms=[view_pipeline],
    channels_last=True,
)
train_pipeline = [{**pack, 'type': 'PackWithSeed'}]
test_pipeline = [pack]

train_dataloader = dict(
    batch_size=256,
    num_workers=0,
    persistent_workers=False,
    drop_last=True,
    sampler=dict(type='DefaultSampler', shuffle=True),
    collate_fn=dict(type='default_collate'),
    dataset=dict(type='Glyphs', split='unlabeled', pipeline=train_pipeline),
)
val_dataloader = dict(
    batch_size=500,
    num_workers=0,
    persistent_workers=False,
    sampler=dict(type='DefaultSampler', shuffle=False),
    collate_fn=dict(type='default_collate'),
    dataset=dict(type='Glyphs', split='val', pipeline=test_pipeline),
)
val_evaluator = dict(type='KNNAccuracy', k=20)
val_cfg = dict()
test_dataloader = dict(
    batch_size=500,
    num_workers=0,
    persistent_workers=False,
    sampler=dict(type='DefaultSampler', shuffle=False),
    collate_fn=dict(type='default_collate'),
    dataset=dict(type='Glyphs', split='test', pipeline=test_pipeline),
)
test_evaluator = val_evaluator
test_cfg = dict()

knn_bank = dict(
    batch_size=500,
    num_workers=0,
    sampler=dict(type='DefaultSampler', shuffle=False),
    collate_fn=dict(type='default_collate'),
    dataset=dict(type='Glyphs', split='train', pipeline=test_pipeline),
)
