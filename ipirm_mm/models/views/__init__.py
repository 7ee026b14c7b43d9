"""Views of a batch of images at once."""

from .batched_views import BatchedViews, ClsBatchedViews
from .draws import Draws
from .image_ops import (
    apply_to_axes,
    blur_matrix,
    crop_matrix,
    jitter_colors,
    to_gray,
    turn_hue,
)

__all__ = [
    'BatchedViews',
    'ClsBatchedViews',
    'Draws',
    'apply_to_axes',
    'blur_matrix',
    'crop_matrix',
    'jitter_colors',
    'to_gray',
    'turn_hue',
]
