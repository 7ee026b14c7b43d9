# Test-time augmentation by the image and its mirror image (report: HorizontalFlip, with geometric
# mean or t-sharpening; which with which is not said). For a config of 224 pixels:
#   _base_ = [..., '_base_/tta/flip.py']
# and `tools/test.py CONFIG CHECKPOINT --tta`, also with MMPretrain's own tool. Our tool needs no
# such base: --tta-crops flip|five|ten turns the test pipeline of any config.
tta_model = dict(type='ScoreMergingTTA', policy='gmean')
tta_pipeline = [
    dict(type='LoadImage'),
    dict(type='ResizeEdge', scale=256, edge='short'),
    dict(type='CenterCrop', crop_size=224),
    dict(type='HorizontalFlip', transforms=[dict(type='PackInputs')]),
]
