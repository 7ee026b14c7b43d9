# The VIPriors subset for Stage II at 330 pixels; test images are resized to 377 (256 / 224) first.
_base_ = ['vipriors_distill.py']

random_crop = dict(_base_.random_crop, scale=330)
resize = dict(_base_.resize, scale=377)
center_crop = dict(_base_.center_crop, crop_size=330)
ten_crops = dict(_base_.ten_crops, crop_size=330)

seeded = dict(_base_.seeded, transforms=[random_crop, *_base_.augmentations])
train_pipeline = [_base_.load, seeded, _base_.pack]
test_pipeline = [_base_.load, resize, center_crop, _base_.pack]
tta_pipeline = [_base_.load, resize, ten_crops]
train_dataloader = dict(dataset=dict(pipeline=train_pipeline))
val_dataloader = test_dataloader = dict(dataset=dict(pipeline=test_pipeline))
