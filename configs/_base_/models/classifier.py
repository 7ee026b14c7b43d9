# A classifier with the report's label smoothing. The config that uses it adds the backbone, and
# the checkpoint of Stage I to start from. All backbones of the report end in 2048 channels.
model = dict(
    type='ImageClassifier',
    neck=dict(type='GlobalAveragePooling'),
    head=dict(
        type='LinearClsHead',
        num_classes=1000,
        in_channels=2048,
        loss=dict(type='LabelSmoothLoss', label_smooth_val=0.1),
        topk=(1, 5),
    ),
)
