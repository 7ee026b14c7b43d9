"""Data sets and transforms, registered in ``mmpretrain.registry``."""

from .fashion_mnist import FashionMNIST50
from .indices import base_dataset
from .transforms import PALETTE, LoadImage, SeededMultiView, TintByFactor, tint

__all__ = [
    'PALETTE',
    'FashionMNIST50',
    'LoadImage',
    'SeededMultiView',
    'TintByFactor',
    'base_dataset',
    'tint',
]
