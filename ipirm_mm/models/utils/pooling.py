"""Pool the features of a network to one row per image."""

from __future__ import annotations

from typing import Any

from torch import Tensor


def pooled_feature(model: Any, images: Tensor) -> Tensor:
    """Pool the last feature of a model's backbone (and neck, where ``extract_feat`` has one).

    Args:
        model: A model of MMPretrain, with ``extract_feat``.
        images: Images, ``(B, C, H, W)``.

    Returns:
        ``(B, D)``.
    """
    return pool_last(model.extract_feat(images))


def pool_last(features: Any) -> Tensor:
    """Pool the last of a network's features over positions.

    Args:
        features: What ``extract_feat`` returns: a tensor, or a tuple of the stages' features,
            ``(B, D, H, W)`` or ``(B, D)``. The last one may be the pair of patch tokens and class
            token that older vision transformers give; then the class token is taken.

    Returns:
        ``(B, D)``.
    """
    feature = features[-1] if isinstance(features, (list, tuple)) else features
    if isinstance(feature, (list, tuple)):  # patch tokens and class token
        feature = feature[-1]
    return feature.flatten(2).mean(2) if feature.ndim > 2 else feature
