"""Transforms, registered in ``mmpretrain.registry.TRANSFORMS``."""

from .loading import LoadImage
from .member_views import MemberViews, member_config
from .resized_crop import TorchRandomResizedCrop
from .seeded import PackWithSeed, SeededMultiView, SeededTransforms
from .single_augmentations import augmented_dataset, recolored_dataset, single_augmentations
from .tint import PALETTE, TintByFactor, tint
from .tta import (
    CROPS,
    POSITIONS,
    EfficientNetPositionCrop,
    FiveCrop,
    HorizontalFlip,
    MirrorImage,
    PositionCrop,
    TenCrop,
)
from .view_pipeline import tta_pipeline

__all__ = [
    'CROPS',
    'PALETTE',
    'POSITIONS',
    'EfficientNetPositionCrop',
    'FiveCrop',
    'HorizontalFlip',
    'LoadImage',
    'MemberViews',
    'MirrorImage',
    'PackWithSeed',
    'PositionCrop',
    'SeededMultiView',
    'SeededTransforms',
    'TenCrop',
    'TintByFactor',
    'TorchRandomResizedCrop',
    'augmented_dataset',
    'member_config',
    'recolored_dataset',
    'single_augmentations',
    'tint',
    'tta_pipeline',
]
