# The VIPriors subset for Stage II at 224 pixels: RandAugment and RandomErasing (report). It needs
# dict(type='SetEpochHook') in custom_hooks. The final run on train and val: configs/final.
_base_ = ['vipriors_classification.py']

bgr_mean = [103.53, 116.28, 123.675]
flip = dict(type='RandomFlip', prob=0.5)
erase = dict(
    type='RandomErasing',
    erase_prob=0.25,
    mode='rand',
    min_area_ratio=0.02,
    max_area_ratio=1 / 3,
    fill_color=bgr_mean,
    fill_std=[57.375, 57.12, 58.395],
)
# What follows the random crop.
augmentations = [
    flip,
    dict(
        type='RandAugment',
        policies='timm_increasing',
        num_policies=2,
        total_level=10,
        magnitude_level=9,
        magnitude_std=0.5,
        hparams=dict(pad_val=[104, 116, 124], interpolation='bicubic'),
    ),
    erase,
]
# The same with AutoAugment, which the report names too; it does not say which model has which. Its
# policy was searched on ImageNet. configs/finetune/teacher_r50_autoaugment.py shows how to take
# it, at any resolution. (MMPretrain's AutoAugment ignores hparams.)
auto_augmentations = [flip, dict(type='AutoAugment', policies='imagenet'), erase]
# Its draws differ between epochs, and a resumed run repeats them.
seeded = dict(type='SeededTransforms', transforms=[_base_.random_crop, *augmentations])
train_pipeline = [_base_.load, seeded, _base_.pack]
train_dataloader = dict(dataset=dict(pipeline=train_pipeline))
