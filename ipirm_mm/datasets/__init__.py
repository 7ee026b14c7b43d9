"""Data sets and transforms, registered in ``mmpretrain.registry``."""

from .array_dataset import ArrayDataset
from .binary_images import STL10, CIFAR100Binary
from .crops import POSITIONS, FiveCrop, HorizontalFlip, PositionCrop, TenCrop
from .fashion_mnist import FashionMNIST50
from .indices import base_dataset
from .transforms import PALETTE, LoadImage, SeededMultiView, SeededTransforms, TintByFactor, tint
from .vipriors import EXTENSIONS, VIPriors

__all__ = [
    'EXTENSIONS',
    'PALETTE',
    'POSITIONS',
    'STL10',
    'ArrayDataset',
    'CIFAR100Binary',
    'FashionMNIST50',
    'FiveCrop',
    'HorizontalFlip',
    'LoadImage',
    'PositionCrop',
    'SeededMultiView',
    'SeededTransforms',
    'TenCrop',
    'TintByFactor',
    'VIPriors',
    'base_dataset',
    'tint',
]
