# CIFAR-100, 50,000 images, two views as in Wang et al.'s code; tested at 32 pixels.
_base_ = ['stl10_simclr.py']

train_dataloader = dict(dataset=dict(type='CIFAR100Binary', split='train'))
val_dataloader = dict(dataset=dict(type='CIFAR100Binary'))
test_dataloader = dict(dataset=dict(type='CIFAR100Binary'))
knn_bank = dict(dataset=dict(type='CIFAR100Binary'))
