# Wang et al.'s script of the linear probe on CIFAR-100, like ../stl10/linear_stl10.py.
_base_ = ['../stl10/linear_stl10.py']

model = dict(
    backbone=dict(init_cfg=dict(checkpoint='work_dirs/ipirm_simclr_cifar100/epoch_400.pth')),
    head=dict(num_classes=100),
)
data_preprocessor = dict(num_classes=100)
train_dataloader = dict(dataset=dict(type='CIFAR100Binary'))
val_dataloader = dict(dataset=dict(type='CIFAR100Binary'))
test_dataloader = dict(dataset=dict(type='CIFAR100Binary'))
knn_bank = dict(dataset=dict(type='CIFAR100Binary'))
