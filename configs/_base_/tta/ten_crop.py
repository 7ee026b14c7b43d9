# Test-time augmentation by ten crops (report: TenCrop) at 224 pixels. For other
# sizes see flip.py.
tta_load = dict(type='LoadImage')
tta_resize = dict(type='ResizeEdge', scale=256, edge='short', backend='pillow')
tta_views = dict(type='TenCrop', crop_size=224, transforms=[dict(type='PackInputs')])
tta_pipeline = [tta_load, tta_resize, tta_views]
tta_model = dict(type='ScoreMergingTTA', policy='tsharpen')
