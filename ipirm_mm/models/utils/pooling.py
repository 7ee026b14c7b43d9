"""Pool the features of a network to one row per image, as its backbone means them."""

from __future__ import annotations

import inspect
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from typing import Any, NamedTuple

import torch
from mmpretrain.models import (
    Conformer,
    DistilledVisionTransformer,
    EfficientFormer,
    HuggingFaceClassifier,
    ImageClassifier,
    MlpMixer,
    SparseConvNeXt,
    SparseResNet,
    TIMMBackbone,
    TimmClassifier,
)
from torch import Tensor, nn

from ipirm_mm.compat import all_positions_active
from ipirm_mm.errors import UserError

# Backbones of MMPretrain whose token features are (B, C, L): channels before positions.
_CHANNELS_FIRST = (MlpMixer, EfficientFormer)
# Entries of dict outputs that are the pooled feature, in the order in which they are tried:
# Hugging Face's encoders, DINOv2's and other dicts of timm.
_POOLED_ENTRIES = ('pooler_output', 'x_norm_clstoken')

# Names of the argument by which backbones for masked image modeling take a mask, or what it is
# drawn by (MILAN). None stands for the whole image.
_MASKS = ('mask', 'importance')


class LogitsAndFeature(NamedTuple):
    """What one pass through a whole classifier gives.

    Attributes:
        logits: Logits, ``(B, C)``; None if the network has no classifier.
        feature: Input of the last layer, ``(B, D)``.
    """

    logits: Tensor | None
    feature: Tensor


def pooled_feature(model: Any, images: Tensor) -> Tensor:
    """Pool the last feature of a model's backbone (and neck, where ``extract_feat`` has one).

    Args:
        model: A model of MMPretrain: with ``extract_feat``, or a classifier of timm or Hugging
            Face.
        images: Images, ``(B, C, H, W)``.

    Returns:
        ``(B, D)``.

    Raises:
        UserError: If the model gives no features, or it is not known how to pool them.
    """
    if isinstance(model, (TimmClassifier, HuggingFaceClassifier)):
        return run_wrapped_classifier(model, images).feature
    if not callable(getattr(model, 'extract_feat', None)):
        raise UserError(
            f'{type(model).__name__} gives no features: it has no extract_feat. Use a classifier '
            'or a self-supervised algorithm'
        )
    with whole_images(model, images):
        return pool_last(model.extract_feat(images), model)


@contextmanager
def whole_images(model: Any, images: Tensor) -> Iterator[None]:
    """Let the backbone of a model see whole images, also one for masked image modeling.

    Such a backbone draws a mask, or wants one, unless it is told otherwise. Its own algorithm does
    so in ``extract_feat``, but a classifier does not.

    Args:
        model: The model.
        images: Images, ``(B, C, H, W)``.
    """
    backbone = getattr(model, 'backbone', None)
    with ExitStack() as stack:
        if isinstance(backbone, (SparseResNet, SparseConvNeXt)):
            stack.enter_context(all_positions_active(images))
        elif isinstance(backbone, nn.Module):
            parameters = inspect.signature(backbone.forward).parameters
            name = next((name for name in _MASKS if name in parameters), None)
            if name is not None:
                handle = backbone.register_forward_pre_hook(
                    lambda module, args, kwargs: (args[:1], {name: None}), with_kwargs=True
                )
                stack.callback(handle.remove)
        yield


def pool_last(features: Any, model: Any) -> Tensor:
    """Pool the last of a network's features over positions.

    Feature maps ``(B, D, H, W)`` are averaged. Tokens are pooled as the backbone declares: its
    class token if it has one, otherwise the mean of its tokens. Where a backbone puts out the
    pair of patch tokens and class token, the class token is taken; of the pair of class and
    distillation token the mean (as timm does); of a Conformer both branches, side by side.

    Args:
        features: What ``extract_feat`` returns: a tensor, or a tuple of the stages' features.
        model: The model with the attribute ``backbone``, and ``neck`` if ``extract_feat``
            includes it; or the backbone itself.

    Returns:
        ``(B, D)``.

    Raises:
        UserError: If it is not known which axis of the features is which.
    """
    source = getattr(model, 'backbone', model)
    if isinstance(model, ImageClassifier) and model.with_neck:
        # What the backbone declares about its features does not hold after a neck.
        source = model.neck
    feature = features[-1] if isinstance(features, (list, tuple)) else features
    if isinstance(feature, Mapping):
        feature = _entry(feature, source)
    if isinstance(feature, (list, tuple)):
        return _pool_parts(list(feature), source)
    if not isinstance(feature, Tensor) or not feature.is_floating_point():
        kind = feature.dtype if isinstance(feature, Tensor) else type(feature).__name__
        raise UserError(
            f'{type(source).__name__} gives {kind} instead of features: let extract_feat return '
            'those of the whole image (of masked image modeling, without a mask)'
        )
    return _pool_tensor(feature, source)


def _entry(feature: Mapping, source: Any) -> Tensor:
    """Take the pooled feature out of a dict."""
    for name in _POOLED_ENTRIES:
        value = feature.get(name)
        if isinstance(value, Tensor):
            return value
    raise UserError(
        f'{type(source).__name__} gives a dict of features with {sorted(map(str, feature))}: '
        'which one is the pooled feature is not known. Known names are '
        f'{", ".join(_POOLED_ENTRIES)}; use a neck that picks the one you mean'
    )


def _pool_parts(parts: list[Any], source: Any) -> Tensor:
    """Pool a backbone's last output that has several parts."""
    rows = [part for part in parts if isinstance(part, Tensor) and part.ndim == 2]
    if isinstance(source, Conformer):  # convolution and transformer; the head reads both
        return torch.cat(rows, 1)
    if isinstance(source, DistilledVisionTransformer):  # class token and distillation token
        return torch.stack(rows[-2:]).mean(0)
    if len(rows) == 1 and len(parts) == 2:  # patch tokens and class token
        return rows[0]
    shapes = [tuple(part.shape) if isinstance(part, Tensor) else type(part) for part in parts]
    raise UserError(
        f'the last output of {type(source).__name__} has {len(parts)} parts of the shapes '
        f'{", ".join(map(str, shapes))}: which one is the feature is not known. Use a neck that '
        'picks the one you mean'
    )


def _pool_tensor(feature: Tensor, source: Any) -> Tensor:
    """Pool one tensor over positions."""
    if feature.ndim == 2:
        return feature
    if feature.ndim == 4:
        if _timm_format(source) == 'NHWC':
            return feature.flatten(1, 2).mean(1)
        return feature.flatten(2).mean(2)
    if feature.ndim == 3:
        if isinstance(source, _CHANNELS_FIRST):
            return feature.mean(2)
        prefix = _prefix_tokens(source, feature)
        if prefix is not None:
            return _pool_tokens(feature, prefix, source)
    raise UserError(
        f'the features of {type(source).__name__} have the shape {tuple(feature.shape)}: which '
        'axis is which is not known. Let the backbone pool them (out_type="cls_token" or '
        '"avg_featmap" where it has this option), or add a neck that gives (N, D) or (N, D, H, W)'
    )


def _prefix_tokens(source: Any, feature: Tensor) -> int | None:
    """Number of tokens before the patch tokens of features ``(B, L, D)``; None if not known."""
    if isinstance(source, TIMMBackbone):
        network = source.timm_model
        if feature.shape[2] != getattr(network, 'num_features', None):
            return None
        return int(getattr(network, 'num_prefix_tokens', 0))
    if getattr(source, 'out_type', None) != 'raw':
        return None
    if hasattr(source, 'num_extra_tokens'):
        return int(source.num_extra_tokens)
    if hasattr(source, 'xca_layers'):  # XCiT appends its class token after these layers
        return int(max(source.out_indices) >= len(source.xca_layers))
    return None


def _pool_tokens(feature: Tensor, prefix: int, source: Any) -> Tensor:
    """Pool tokens ``(B, L, D)`` of which the first ones belong to no patch."""
    if isinstance(source, DistilledVisionTransformer):
        return feature[:, :prefix].mean(1)
    return feature[:, 0] if prefix else feature.mean(1)


def _timm_format(source: Any) -> str:
    """How a backbone of timm orders the axes of its feature maps."""
    network = source.timm_model if isinstance(source, TIMMBackbone) else None
    declared = getattr(network, 'output_fmt', 'NCHW')
    return str(getattr(declared, 'value', declared)).upper()


def run_wrapped_classifier(model: Any, images: Tensor) -> LogitsAndFeature:
    """Run a classifier of timm or Hugging Face, and record the input of its last layer.

    MMPretrain's wrapper of timm gives features that are not pooled, and that of Hugging Face
    gives none. The input of the classifying layer is the pooled feature in all of their networks.

    Args:
        model: A ``TimmClassifier`` or ``HuggingFaceClassifier``.
        images: Images, ``(B, C, H, W)``.

    Returns:
        Logits and pooled features.

    Raises:
        UserError: If the classifying layer is not found.
    """
    layers = classifying_layers(model)
    inputs: list[Tensor] = []
    handles = [
        layer.register_forward_pre_hook(lambda layer, args: inputs.append(args[0]))
        for layer in layers
    ]
    try:
        output = model(images)
    finally:
        for handle in handles:
            handle.remove()
    rows = [row.flatten(1) for row in inputs]
    if not rows or not isinstance(output, Tensor):
        raise UserError(
            f'{type(model).__name__} with a {type(model.model).__name__}: its pooled feature is '
            'the input of its classifying layer, which it did not use'
        )
    is_encoder = all(isinstance(layer, nn.Identity) for layer in layers)
    return LogitsAndFeature(None if is_encoder else output, torch.stack(rows).mean(0))


def classifying_layers(model: Any) -> list[nn.Module]:
    """Find the classifying layers of a wrapped classifier: one, or two of a distilled network.

    Args:
        model: A ``TimmClassifier`` or ``HuggingFaceClassifier``.

    Returns:
        The layers.

    Raises:
        UserError: If there are none under the usual names.
    """
    network = model.model
    if callable(getattr(network, 'get_classifier', None)):  # timm
        found = network.get_classifier()
        layers = list(found) if isinstance(found, (list, tuple)) else [found]
    else:  # Hugging Face
        names = ('classifier', 'cls_classifier', 'distillation_classifier')
        layers = [getattr(network, name) for name in names if hasattr(network, name)]
    if not layers or not all(isinstance(layer, nn.Module) for layer in layers):
        raise UserError(
            f'{type(model).__name__} with a {type(network).__name__}: its classifying layer is '
            'not found under the name that timm and Hugging Face give it (get_classifier(), '
            'classifier): use another network'
        )
    return layers
