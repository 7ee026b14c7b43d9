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

# For --tta: ten crops of the training resolution, merged by t-sharpening. The report names flip,
# five and ten crops with t-sharpening or geometric mean, and does not say which model has which.
# Ten crops are the five crops and their mirror images. They cost ten passes; README.md in
# configs/finetune has the lines for another choice.
ten_crops = dict(type='TenCrop', crop_size=224, transforms=[_base_.pack])
tta_model = dict(type='ScoreMergingTTA', policy='tsharpen')
tta_pipeline = [_base_.load, _base_.resize, ten_crops]
