# Test-time augmentation by five crops (report: FiveCrop), for a config of 224 pixels.
tta_model = dict(type='ScoreMergingTTA', policy='tsharpen')
tta_pipeline = [
    dict(type='LoadImage'),
    dict(type='ResizeEdge', scale=256, edge='short'),
    dict(type='FiveCrop', crop_size=224, transforms=[dict(type='PackInputs')]),
]
