"""The logits of a head: what its ``predict`` turns into scores."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from mmpretrain.models import ConformerHead, MultiLabelClsHead
from torch import Tensor

# How a head turns its logits into scores: of one label per image, or of several.
SCORE_KINDS = ('softmax', 'sigmoid')


def head_logits(head: Any, output: Any) -> Tensor | None:
    """Get the logits that a head's ``predict`` uses, from the output of its ``forward``.

    Args:
        head: A head of MMPretrain.
        output: What ``head(features)`` gives.

    Returns:
        ``(N, C)``; None if it has no such logits, see :func:`describe_output`.
    """
    if isinstance(head, ConformerHead):
        return output[0] + output[1]
    if isinstance(output, Tensor) and output.ndim == 2:
        return output
    return None


def describe_output(head: Any, output: Any) -> str:
    """Say why a head has no logits to compare, for a message.

    Args:
        head: A head of MMPretrain.
        output: What ``head(features)`` gives.

    Returns:
        Such as ``'has a MultiTaskHead, which gives one output per task (color, shape)'``.
    """
    name = type(head).__name__
    if isinstance(output, Mapping):
        return f'has a {name}, which gives one output per task ({", ".join(map(str, output))})'
    if isinstance(output, (list, tuple)):
        return f'has a {name}, which gives {len(output)} outputs'
    shape = tuple(output.shape) if isinstance(output, Tensor) else type(output).__name__
    return f'has a {name}, whose output is {shape} instead of one row per image'


def score_kind(head: Any, features: Any, logits: Tensor) -> str | None:
    """Tell how a head in eval mode turns logits into scores, from what it predicts.

    Args:
        head: A head of MMPretrain.
        features: Its input.
        logits: Its logits for this input, ``(N, C)``.

    Returns:
        ``'softmax'``, or ``'sigmoid'`` for several labels per image; None if it is neither.
    """
    declared = 'sigmoid' if isinstance(head, MultiLabelClsHead) else 'softmax'
    try:
        scores = torch.stack([sample.pred_score for sample in head.predict(features)])
    except (AttributeError, NotImplementedError, TypeError):  # its predict is of another kind
        return declared
    if not bool(torch.isfinite(scores).all()):  # of weights without values, nothing can be told
        return declared
    # The declared one first: two logits of zero have the same scores both ways.
    for kind in (declared, *SCORE_KINDS):
        expected = logits.softmax(1) if kind == 'softmax' else logits.sigmoid()
        if expected.shape == scores.shape and torch.allclose(expected, scores, atol=1e-5):
            return kind
    return None
