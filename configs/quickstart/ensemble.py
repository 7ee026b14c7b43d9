# Table 2 at a laptop's scale: the students of student_kl.py and student_ofd.py, each with the mean
# over an image and its mirror image. Train these two first, then:
#   python tools/test.py configs/quickstart/ensemble.py
_base_ = ['../_base_/datasets/fashion_mnist_50.py', '../_base_/default_runtime.py']

members = [
    dict(
        config=f'ipirm_mm::quickstart/{name}.py',
        checkpoint=f'work_dirs/{name}/epoch_100.pth',
        crops='flip',
    )
    for name in ('student_kl', 'student_ofd')
]
model = dict(type='EnsembleClassifier', members=members, policy='mean')
test_dataloader = dict(dataset=dict(pipeline=[dict(type='MemberViews', members=members)]))
test_evaluator = dict(_delete_=True, type='Accuracy')
# Nothing is trained.
train_dataloader = None
val_dataloader = None
val_evaluator = None
val_cfg = None
