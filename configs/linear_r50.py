# Report, Table 3: linear classifier on a frozen ResNet-50, 100 epochs. Give the encoder, or take
# the file of a row (linear_simclr_r50.py, ...):
#   tools/train.py configs/linear_r50.py \
#       --cfg-options model.backbone.init_cfg.checkpoint=work_dirs/ipirm_simclr_r50/epoch_800.pth
# The report does not give the optimiser; this is the usual one of linear probes.
_base_ = ['supervised_r50.py']

model = dict(
    backbone=dict(
        frozen_stages=4,
        norm_eval=True,
        init_cfg=dict(type='Pretrained', checkpoint='', prefix='backbone.'),
    )
)
optim_wrapper = dict(optimizer=dict(weight_decay=0.0))
