"""An ensemble as a model, for inference by one command."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from mmengine.model import BaseModel
from mmpretrain.registry import MODELS
from mmpretrain.structures import DataSample
from torch import Tensor, nn

from ipirm_mm.datasets.transforms import member_config
from ipirm_mm.errors import UserError
from ipirm_mm.functional.scores import POLICIES, WEIGHTED_POLICIES
from ipirm_mm.options import check_one_of

from ..tta import CROPS, ScoreMergingTTA
from ..utils import (
    class_names,
    common_classes,
    label_rule,
    load_classifier,
    merge_samples,
    stack_scores,
)
from .member_weights import load_member_weights, member_names, model_name


@MODELS.register_module()
class EnsembleClassifier(BaseModel):
    """Merge the probabilities of several trained classifiers (report Section 4.2, Table 2).

    :class:`~ipirm_mm.datasets.MemberViews` gives each member images of its own resolution, with
    its own test-time augmentation. There is nothing to train. Members whose checkpoints name the
    same classes in another order are mapped to the order of the first member.

    .. code-block:: python

        members = [
            dict(config='ipirm_mm::distill/kl_resnest101_330.py', checkpoint='a.pth', crops='ten'),
            dict(config='ipirm_mm::distill/kl_seresnext101_330.py', checkpoint='b.pth'),
        ]
        model = dict(type='EnsembleClassifier', members=members, policy='tsharpen')

    Args:
        members: One dict per member with the paths ``config`` and ``checkpoint``, and optionally
            its test-time augmentation: ``crops`` (``'center'``, ``'flip'``, ``'five'`` or
            ``'ten'``), ``crop_size``, ``resize`` and ``policy`` (``'mean'``, ``'gmean'`` or
            ``'tsharpen'``).
        policy: How to merge the members: ``'mean'``, ``'gmean'``, ``'tsharpen'``, ``'weighted'``
            or ``'weighted_tsharpen'``, see :func:`~ipirm_mm.functional.merge_scores`. Defaults to
            ``'mean'``.
        weights: Weight of each member for the last two policies: numbers, or the file that
            ``tools/ensemble.py --save-weights`` wrote. The weights in a file are assigned by the
            names of the members' configs, in any order; those of ``NAME`` also to
            ``final_NAME``, the same model trained on train and val. Defaults to None.
        data_preprocessor: Not used; MMEngine passes it, and each member has its own.

    Raises:
        UserError: If an option is out of range, a file is missing, weights are of other members,
            or members have different classes, or one label and several.
    """

    def __init__(
        self,
        members: Sequence[dict[str, Any]],
        policy: str = 'mean',
        weights: Sequence[float] | str | None = None,
        data_preprocessor: dict | None = None,
    ) -> None:
        super().__init__()
        if not members:
            raise UserError('EnsembleClassifier.members is empty: name at least one')
        check_one_of('EnsembleClassifier.policy', policy, POLICIES)
        if isinstance(weights, str):
            models = [(model_name(m.get('config', '')), m.get('checkpoint')) for m in members]
            weights = load_member_weights(weights, policy).for_members(member_names(models))
        if (weights is not None) != (policy in WEIGHTED_POLICIES):
            raise UserError(
                "EnsembleClassifier.policy 'weighted_tsharpen' or 'weighted' needs weights, no "
                f'other takes any, but policy is {policy!r} and weights are {weights}'
            )
        if weights is not None and len(weights) != len(members):
            raise UserError(
                f'EnsembleClassifier has {len(members)} members, but {len(weights)} weights'
            )
        self.policy = policy
        self.weights = weights
        self.views = [CROPS[m['crops']] if m.get('crops') else 1 for m in members]
        self.members = nn.ModuleList()
        rules, classes = [], []
        for member in members:
            config = member_config(member)
            network = load_classifier(config, member['checkpoint'])
            rules.append(label_rule(network))
            classes.append(class_names(member['checkpoint'], config))
            self.members.append(ScoreMergingTTA(network, policy=member.get('policy', 'mean')))
        if len({rule is None for rule in rules}) > 1:
            raise UserError(
                'some members of the ensemble predict one label per image, and others several: '
                'members must predict the same'
            )
        self.rule = rules[0]
        paths = [member['checkpoint'] for member in members]
        self.classes, self.orders = common_classes(classes, paths)

    def forward(self, inputs: Any, data_samples: Any = None, mode: str = 'predict') -> Any:
        """Predict a batch; there is no other mode.

        Args:
            inputs: One batch of images per view of each member, not normalized.
            data_samples: One list of samples per view of each member.
            mode: ``'predict'``, the default.

        Returns:
            One sample per image, see :meth:`test_step`.

        Raises:
            UserError: If the mode is another.
        """
        if mode != 'predict':
            raise UserError(
                f'an ensemble can only predict, but is called in mode {mode!r}: train its members'
            )
        return self.test_step(dict(inputs=inputs, data_samples=data_samples))

    @torch.no_grad()
    def test_step(self, data: dict[str, Any]) -> list[DataSample]:
        """Predict a batch.

        Args:
            data: ``inputs`` and ``data_samples``, each a list over the views of all members, from
                :class:`~ipirm_mm.datasets.MemberViews`.

        Returns:
            One sample per image, with the merged ``pred_score`` and its ``pred_label``.

        Raises:
            UserError: If the number of views is wrong, or members have different classes.
        """
        if len(data['inputs']) != sum(self.views):
            raise UserError(
                f'the ensemble needs {sum(self.views)} views of each image, but gets '
                f'{len(data["inputs"])}: give MemberViews in the test pipeline and '
                'EnsembleClassifier the same members'
            )
        predictions, begin = [], 0
        for member, count in zip(self.members, self.views):
            part = {key: value[begin : begin + count] for key, value in data.items()}
            assert isinstance(member, ScoreMergingTTA)
            predictions.append(member.test_step(part))
            begin += count
        scores = self.stack([stack_scores(p) for p in predictions])
        return merge_samples(predictions[0], scores, self.policy, self.rule, self.weights)

    val_step = test_step

    def stack(self, scores: list[Tensor]) -> Tensor:
        """Stack the scores of the members, with their classes in the order of the first member's.

        Args:
            scores: Scores of each member, ``(N, C)`` each.

        Returns:
            ``(A, N, C)``.

        Raises:
            UserError: If the members have different numbers of classes.
        """
        classes = [score.shape[1] for score in scores]
        if len(set(classes)) > 1:
            raise UserError(
                f'the members of the ensemble have {classes} classes: members must have the same '
                'classes'
            )
        return torch.stack(
            [
                score if order is None else score[:, order]
                for score, order in zip(scores, self.orders)
            ]
        )
