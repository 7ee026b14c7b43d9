# Report, Section 4.2: teacher_r50.py with AutoAugment in place of RandAugment. The report names
# both and does not say which model has which. The lines below give any teacher or student
# AutoAugment, at its own resolution.
_base_ = ['teacher_r50.py']

seeded = dict(_base_.seeded, transforms=[_base_.random_crop, *_base_.auto_augmentations])
train_pipeline = [_base_.load, seeded, _base_.pack]
train_dataloader = dict(dataset=dict(pipeline=train_pipeline))
