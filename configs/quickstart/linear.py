# Linear probe at a laptop's scale: a frozen encoder of this folder's configs, 100 epochs on the
# labeled images, without augmentation. Give the encoder:
#   python tools/train.py configs/quickstart/linear.py --cfg-options \
#       model.backbone.init_cfg.checkpoint=work_dirs/ipirm_simclr_sum/epoch_20.pth
# and model.backbone.norm_cfg=None for one with group normalization, such as ipirm_simclr.py.
_base_ = ['supervised.py']

model = dict(
    backbone=dict(frozen=True, init_cfg=dict(type='Pretrained', checkpoint='', prefix='backbone.'))
)
# Whole images, as in the test.
data_preprocessor = dict(
    _delete_=True, num_classes=10, mean=[73.0] * 3, std=[90.0] * 3, to_rgb=True
)
train_dataloader = dict(dataset=dict(pipeline=_base_.test_pipeline))
