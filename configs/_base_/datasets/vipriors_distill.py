# The VIPriors subset for Stage II at 224 pixels: RandAugment and RandomErasing (report). For the
# final run on train and val:
#   --cfg-options train_dataloader.dataset.split="['train','val']"
_base_ = ['vipriors_classification.py']

bgr_mean = [103.53, 116.28, 123.675]
train_pipeline = [
    dict(type='LoadImage'),
    # Draws that a resumed run sees again, and that differ between epochs.
    dict(
        type='SeededTransforms',
        transforms=[
            dict(type='RandomResizedCrop', scale=224, backend='pillow'),
            dict(type='RandomFlip', prob=0.5),
            dict(
                type='RandAugment',
                policies='timm_increasing',
                num_policies=2,
                total_level=10,
                magnitude_level=9,
                magnitude_std=0.5,
                hparams=dict(pad_val=[104, 116, 124], interpolation='bicubic'),
            ),
            dict(
                type='RandomErasing',
                erase_prob=0.25,
                mode='rand',
                min_area_ratio=0.02,
                max_area_ratio=1 / 3,
                fill_color=bgr_mean,
                fill_std=[57.375, 57.12, 58.395],
            ),
        ],
    ),
    dict(type='PackInputs'),
]
train_dataloader = dict(dataset=dict(pipeline=train_pipeline))
custom_hooks = [dict(type='SetEpochHook')]
