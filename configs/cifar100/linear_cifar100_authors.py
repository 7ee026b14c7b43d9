# Wang et al.'s script of the linear probe on CIFAR-100 to the letter: the encoder is in train
# mode, so the statistics of its batch normalization change. Its weights do not.
_base_ = ['linear_cifar100.py']

model = dict(backbone=dict(frozen_stages=-1, norm_eval=False))
optim_wrapper = dict(
    paramwise_cfg=dict(custom_keys=dict(backbone=dict(lr_mult=0.0, decay_mult=0.0)))
)
