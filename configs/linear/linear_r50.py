# Report, Table 3: linear classifier on a frozen ResNet-50, 100 epochs. Give the encoder, or use
# the config of a row (linear_simclr_r50.py, ...):
#   python tools/train.py configs/linear/linear_r50.py \
#       --cfg-options model.backbone.init_cfg.checkpoint=work_dirs/ipirm_simclr_r50/epoch_800.pth
# The report does not give the optimizer. This is the usual one for linear probes.
_base_ = ['../baselines/supervised_r50.py']

model = dict(
    backbone=dict(
        frozen_stages=4,
        norm_eval=True,
        init_cfg=dict(type='Pretrained', checkpoint='', prefix='backbone.'),
    )
)
optim_wrapper = dict(optimizer=dict(weight_decay=0.0))
