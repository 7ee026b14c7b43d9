# The VIPriors subset of ImageNet, with labels, for supervised training and linear probes.
_base_ = ['vipriors_simclr.py']

data_preprocessor = dict(
    _delete_=True,
    num_classes=1000,
    mean=[123.675, 116.28, 103.53],
    std=[58.395, 57.12, 57.375],
    to_rgb=True,
)
random_crop = dict(type='RandomResizedCrop', scale=224, backend='pillow')
train_pipeline = [_base_.load, random_crop, dict(type='RandomFlip', prob=0.5), _base_.pack]
train_dataloader = dict(dataset=dict(pipeline=train_pipeline))
val_evaluator = dict(_delete_=True, type='Accuracy', topk=(1, 5))
test_evaluator = val_evaluator

# For --tta: the image and its mirror image, merged by the geometric mean. The report names flip,
# five and ten crops with geometric mean or t-sharpening, and does not say which model has which.
# A flip costs two passes, not ten, and has gained for every seed at a laptop's scale.
flip_views = dict(type='HorizontalFlip', transforms=[_base_.pack])
tta_model = dict(type='ScoreMergingTTA', policy='gmean')
tta_pipeline = [_base_.load, _base_.resize, _base_.center_crop, flip_views]
