# Stage II: SGD, learning rate batch / 160 * 0.1, 10 warm-up epochs of 100 (report). The report
# does not give momentum, weight decay and the decay of the learning rate.
optim_wrapper = dict(
    type='OptimWrapper', optimizer=dict(type='SGD', lr=0.16, momentum=0.9, weight_decay=1e-4)
)
param_scheduler = [
    dict(
        type='LinearLR',
        start_factor=0.01,
        by_epoch=True,
        begin=0,
        end=10,
        convert_to_iter_based=True,
    ),
    dict(type='CosineAnnealingLR', T_max=90, by_epoch=True, begin=10, end=100),
]
train_cfg = dict(by_epoch=True, max_epochs=100, val_interval=10)
auto_scale_lr = dict(enable=False, base_batch_size=256)
