# Report, Section 4.2: Adam, learning rate 0.001, 800 epochs; weight decay of Wang et al.'s code.
optim_wrapper = dict(type='OptimWrapper', optimizer=dict(type='Adam', lr=1e-3, weight_decay=1e-6))
param_scheduler = []
train_cfg = dict(by_epoch=True, max_epochs=800, val_interval=100)
# The report names no batch size; Wang et al.'s code has 256.
auto_scale_lr = dict(enable=False, base_batch_size=256)
