# Report, Table 2: five models (ResNeSt-101, ResNeSt-200, SE-ResNeXt-101) at "various input sizes",
# t-sharpen, 71.55 on the test split. The sizes are those of Table 1 for these backbones. Each
# member has ten crops: the report names them, but not which model had which views.
#   python tools/test.py configs/ensemble/ensemble_5_tsharpen.py
# On the test split of the challenge, which has no labels:
#   python tools/test.py configs/ensemble/ensemble_5_tsharpen.py --out test.pkl \
#       --cfg-options test_dataloader.dataset.split=test
#   python tools/ensemble.py test.pkl --submission submission.csv
_base_ = ['../_base_/datasets/vipriors_classification.py', '../_base_/default_runtime.py']

members = [
    dict(
        config=f'ipirm_mm::distill/{name}.py',
        checkpoint=f'work_dirs/{name}/epoch_100.pth',
        crops='ten',
        policy='tsharpen',
    )
    for name in (
        'kl_resnest101_330',
        'kl_resnest101_448',
        'kl_resnest200_320',
        'kl_resnest200_400',
        'kl_seresnext101_330',
    )
]
model = dict(type='EnsembleClassifier', members=members, policy='tsharpen')
test_dataloader = dict(
    batch_size=8,
    dataset=dict(pipeline=[dict(type='MemberViews', members=members)]),
)
# Nothing is trained.
train_dataloader = None
val_dataloader = None
val_evaluator = None
val_cfg = None
