"""Which labels a classifier predicts from its scores: one per image, or several."""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from mmpretrain.models.heads import MultiLabelClsHead
from mmpretrain.structures import DataSample
from torch import Tensor

from ipirm_mm.errors import UserError
from ipirm_mm.functional import merge_label_scores, merge_scores, select_labels


class LabelRule(NamedTuple):
    """How a classifier of several labels per image selects them, as ``MultiLabelClsHead`` does.

    Attributes:
        thr: Labels with at least this score are predicted.
        topk: Number of labels that are predicted if ``thr`` is None.
    """

    thr: float | None = 0.5
    topk: int | None = None


def label_rule(model: Any) -> LabelRule | None:
    """The rule of a classifier of several labels per image; None if it predicts one label.

    Args:
        model: The classifier.
    """
    head = getattr(model, 'head', None)
    if not isinstance(head, MultiLabelClsHead):
        return None
    return LabelRule(head.thr, head.topk)


def wrong_labels(samples: Any, num_classes: int | None) -> str | None:
    """Say what is wrong with the labels of a batch that a head cannot be trained on.

    Args:
        samples: Samples of the images.
        num_classes: Number of classes of the head; None if it is not known.

    Returns:
        A sentence; None if nothing is.
    """
    for sample in samples:
        name = f'the image {sample.get("img_path", "")}'.rstrip()
        if 'gt_label' not in sample and 'gt_score' not in sample:
            return (
                f"{name} has no label, but the head's own loss needs one: give all images labels"
            )
        label = sample.get('gt_label')
        if label is None or num_classes is None or not label.numel():
            continue
        if int(label.min()) < 0 or int(label.max()) >= num_classes:
            return (
                f'{name} has the label {label.tolist()}, but model.head.num_classes is '
                f'{num_classes}, and labels are from 0 to {num_classes - 1}: set it to the number '
                'of classes of the data set'
            )
    return None


def single_labels(samples: Any) -> Tensor | None:
    """Get the class of each image of a batch.

    Args:
        samples: Samples of the images.

    Returns:
        ``(N,)``, long; None if not every image has one class, such as with several labels or none,
        or with weights of classes (``gt_score``) in the place of a label.
    """
    for sample in samples:
        if 'gt_score' in sample or 'gt_label' not in sample or sample.gt_label.numel() != 1:
            return None
    return torch.cat([sample.gt_label.reshape(1) for sample in samples])


def stack_scores(samples: Any) -> Tensor:
    """Scores of predicted samples, ``(N, C)``.

    Raises:
        UserError: If the samples have no scores of classes, or the scores are no probabilities.
    """
    for sample in samples:
        if not isinstance(sample, DataSample) or 'pred_score' not in sample:
            raise UserError(
                f'a prediction is a {type(sample).__name__} without pred_score: views and members '
                'are merged by the scores of one classification; give a classifier with one head '
                'of one or several labels'
            )
    scores = torch.stack([sample.pred_score for sample in samples])
    # Logits and percents would be merged without a word, as if they were of several labels.
    if not bool(((scores >= 0) & (scores <= 1 + 1e-3)).all()):
        raise UserError(
            'the scores that the classifier predicts are no probabilities: they are between '
            f'{float(scores.min()):.4g} and {float(scores.max()):.4g}; views and members are '
            'merged by probabilities: give a classifier whose head has a softmax, or a sigmoid '
            'for several labels per image'
        )
    return scores


def is_distribution(scores: Tensor, tolerance: float = 1e-2) -> bool:
    """Whether the scores of each image sum to 1 over the classes.

    Args:
        scores: ``(..., C)``.
        tolerance: Largest distance of a sum from 1. Defaults to 0.01.
    """
    return bool(((scores.double().sum(-1) - 1).abs() <= tolerance).all())


def merge_samples(
    samples: list[DataSample],
    scores: Tensor,
    policy: str,
    rule: LabelRule | None,
    weights: Any = None,
) -> list[DataSample]:
    """Merge scores, and predict the labels of the merged scores.

    Args:
        samples: Samples that are copied for the result, one per image.
        scores: ``(A, N, C)``.
        policy: As for :func:`~ipirm_mm.functional.merge_scores`.
        rule: The rule of several labels per image. Defaults to None: one label, unless scores do
            not sum to 1.
        weights: As for :func:`~ipirm_mm.functional.merge_scores`. Defaults to None.

    Returns:
        One sample per image, with the merged ``pred_score`` and its ``pred_label``.
    """
    if rule is None and not is_distribution(scores):
        rule = LabelRule()  # of a head that is not known
    if rule is None:
        merged = merge_scores(scores, policy, weights)
        labels = list(merged.argmax(1))
    else:
        merged = merge_label_scores(scores, policy, weights)
        labels = [select_labels(score, *rule) for score in merged]
    return [
        sample.new().set_pred_score(score).set_pred_label(label)
        for sample, score, label in zip(samples, merged, labels)
    ]
