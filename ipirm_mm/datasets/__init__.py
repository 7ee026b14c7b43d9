"""Data sets and transforms, registered in ``mmpretrain.registry``."""

from .array_dataset import ArrayDataset
from .binary_images import STL10, CIFAR100Binary
from .fashion_mnist import FashionMNIST50
from .glyphs import Glyphs
from .indices import (
    ImageNumbers,
    SeenIndex,
    UniqueImages,
    check_slice,
    number_images,
    seeded_transforms,
    tell_epoch,
)
from .labels import one_class, why_not_one_class
from .pipelines import one_pipeline, pipelines, with_pipelines
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
    PackWithSeed,
    PositionCrop,
    SeededMultiView,
    SeededTransforms,
    TenCrop,
    TintByFactor,
    augmented_dataset,
    recolored_dataset,
    single_augmentations,
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
    'Glyphs',
    'HorizontalFlip',
    'ImageNumbers',
    'LoadImage',
    'MemberViews',
    'MirrorImage',
    'PositionCrop',
    'PackWithSeed',
    'SeededMultiView',
    'SeededTransforms',
    'SeenIndex',
    'TenCrop',
    'TintByFactor',
    'UniqueImages',
    'VIPriors',
    'augmented_dataset',
    'check_slice',
    'is_image',
    'number_images',
    'one_class',
    'one_pipeline',
    'pipelines',
    'recolored_dataset',
    'seeded_transforms',
    'single_augmentations',
    'tell_epoch',
    'tint',
    'tta_pipeline',
    'why_not_one_class',
    'with_pipelines',
]
