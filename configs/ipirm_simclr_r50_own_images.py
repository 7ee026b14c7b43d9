# Report, Stage I, on your own images without labels: any number, size and mode, in folders of any
# depth. Change one path, here or by
#   --cfg-options train_dataloader.dataset.data_root=/path/to/images
_base_ = ['ipirm_simclr_r50.py']

train_dataloader = dict(
    dataset=dict(
        _delete_=True,
        type='CustomDataset',
        data_root='data/images',
        with_label=False,
        extensions=('.jpg', '.jpeg', '.png', '.bmp', '.webp', '.tif', '.tiff', '.ppm', '.pgm'),
        pipeline=_base_.train_pipeline,
    )
)
# Without labels there is nothing to validate on.
val_dataloader = val_evaluator = val_cfg = None
test_dataloader = test_evaluator = test_cfg = None
custom_hooks = [
    dict(type='PartitionUpdateHook', interval=50, solver=dict(strategy='local', irm_weight=0.5))
]
