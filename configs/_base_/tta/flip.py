# Test-time augmentation by the image and its mirror image (report: HorizontalFlip, with geometric
# mean or t-sharpening; it does not say which goes with which). For a config without a tta_pipeline
# of its own, such as MMPretrain's:
#   _base_ = ['mmpretrain::...', 'ipirm_mm::_base_/tta/flip.py']
# and `tools/test.py CONFIG CHECKPOINT --tta`, also with MMPretrain's own tool. It is for 224
# pixels. At another size build tta_pipeline again from the steps below:
#   tta_pipeline = [
#       _base_.tta_load,
#       dict(_base_.tta_resize, scale=377),
#       dict(_base_.tta_crop, crop_size=330),
#       _base_.tta_views,
#   ]
# Our own tool needs no such base: --tta-crops flip|five|ten changes the test pipeline of any
# config.
tta_load = dict(type='LoadImage')
tta_resize = dict(type='ResizeEdge', scale=256, edge='short', backend='pillow')
tta_crop = dict(type='CenterCrop', crop_size=224)
tta_views = dict(type='HorizontalFlip', transforms=[dict(type='PackInputs')])
tta_pipeline = [tta_load, tta_resize, tta_crop, tta_views]
tta_model = dict(type='ScoreMergingTTA', policy='gmean')
