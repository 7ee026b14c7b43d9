# Test-time augmentation by ten crops (report: TenCrop), for a config of 224 pixels.
tta_model = dict(type='ScoreMergingTTA', policy='tsharpen')
tta_pipeline = [
    dict(type='LoadImage'),
    dict(type='ResizeEdge', scale=256, edge='short'),
    dict(type='TenCrop', crop_size=224, transforms=[dict(type='PackInputs')]),
]
