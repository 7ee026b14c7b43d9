"""Data sets and transforms, registered in ``mmpretrain.registry``."""

from .array_dataset import ArrayDataset
from .binary_images import STL10, CIFAR100Binary
from .fashion_mnist import FashionMNIST50
from .indices import base_dataset
from .transforms import (
    CROPS,
    PALETTE,
    POSITIONS,
    EfficientNetPositionCrop,
    FiveCrop,
    HorizontalFlip,
    LoadImage,
    MemberViews,
    MirrorImage,
    PositionCrop,
    SeededMultiView,
    SeededTransforms,
    TenCrop,
    TintByFactor,
    tint,
    tta_pipeline,
)
from .vipriors import EXTENSIONS, VIPriors, is_image

__all__ = [
    'CROPS',
    'EXTENSIONS',
    'PALETTE',
    'POSITIONS',
    'STL10',
    'ArrayDataset',
    'CIFAR100Binary',
    'FashionMNIST50',
    'EfficientNetPositionCrop',
    'FiveCrop',
    'HorizontalFlip',
    'LoadImage',
    'MemberViews',
    'MirrorImage',
    'PositionCrop',
    'SeededMultiView',
    'SeededTransforms',
    'TenCrop',
    'TintByFactor',
    'VIPriors',
    'base_dataset',
    'is_image',
    'tint',
    'tta_pipeline',
]
