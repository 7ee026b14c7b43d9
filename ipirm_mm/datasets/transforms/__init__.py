"""Transforms, registered in ``mmpretrain.registry.TRANSFORMS``."""

from .loading import LoadImage
from .member_views import MemberViews, member_config
from .seeded import PackWithSeed, SeededMultiView, SeededTransforms
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
    'member_config',
    'tint',
    'tta_pipeline',
]
