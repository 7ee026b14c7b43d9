# The VIPriors subset for Stage II at 320 pixels.
_base_ = ['vipriors_distill.py']

train_pipeline = _base_.train_pipeline
train_pipeline[1].transforms[0].scale = 320
test_pipeline = _base_.test_pipeline
test_pipeline[1].scale = 366
test_pipeline[2].crop_size = 320
train_dataloader = dict(dataset=dict(pipeline=train_pipeline))
val_dataloader = dict(dataset=dict(pipeline=test_pipeline))
test_dataloader = val_dataloader
