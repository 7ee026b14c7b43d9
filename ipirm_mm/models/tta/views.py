"""Test pipelines of several views, and the classifier that they are for."""

from __future__ import annotations

import copy
from typing import Any

from mmcv.transforms import BaseTransform, Compose
from mmengine.config import Config, ConfigDict
from mmpretrain.models import BaseClassifier
from mmpretrain.registry import MODELS, TRANSFORMS

from ipirm_mm.errors import UserError
from ipirm_mm.resources import find_config

from ..distillers import DistillingClassifier

# How many views each choice has.
CROPS = dict(center=1, flip=2, five=5, ten=10)
_TRANSFORMS = dict(flip='HorizontalFlip', five='FiveCrop', ten='TenCrop')
# Options of a member of an ensemble that are arguments of `tta_pipeline`.
_MEMBER_OPTIONS = ('crops', 'crop_size', 'resize')
# What a student is in a DistillingClassifier.
STUDENT_PARTS = ('backbone', 'neck', 'head', 'data_preprocessor')


def tta_pipeline(
    pipeline: list,
    crops: str,
    crop_size: int | tuple[int, int] | None = None,
    resize: int | None = None,
) -> list:
    """Turn a test pipeline into one of several views.

    Args:
        pipeline: The test pipeline, of which the last transform packs the image.
        crops: Which views: ``'center'`` (the centre crop alone), ``'flip'`` (that and its mirror
            image), ``'five'`` or ``'ten'`` crops, which take the place of the ``CenterCrop``.
        crop_size: Side of the crops. Defaults to None, that of the ``CenterCrop``; where there is
            none, flips are of the whole image.
        resize: Shorter side that the image is resized to before. Defaults to None, that of the
            ``ResizeEdge``.

    Returns:
        The new pipeline; the old one is left as it is.

    Raises:
        UserError: If the views do not exist, no crop size is given anywhere, or there is no
            ``ResizeEdge`` to change.
    """
    if crops not in CROPS:
        raise UserError(f'crops must be one of {tuple(CROPS)}, but is {crops!r}')
    *steps, pack = copy.deepcopy(pipeline)
    if resize is not None:
        edges = [step for step in steps if _kind(step) == 'ResizeEdge']
        if len(edges) != 1:
            raise UserError(
                f'the test pipeline has {len(edges)} ResizeEdge, of which one is needed to resize '
                f'to {resize}: leave the size out, or write a tta_pipeline in the config'
            )
        edges[0]['scale'] = resize
    centers = [step for step in steps if _kind(step) == 'CenterCrop']
    size = crop_size or (centers[-1]['crop_size'] if centers else None)
    if crops in ('five', 'ten'):
        if size is None:
            raise UserError(
                f'{crops} crops need a size, but the test pipeline has no CenterCrop to take it '
                'from: give the size of the crops'
            )
        steps = [step for step in steps if step not in centers]
        return [*steps, dict(type=_TRANSFORMS[crops], crop_size=size, transforms=[pack])]
    if crop_size is not None:
        steps = [step for step in steps if step not in centers]
        steps.append(dict(type='CenterCrop', crop_size=crop_size))
    if crops == 'flip':
        return [*steps, dict(type=_TRANSFORMS[crops], transforms=[pack])]
    return [*steps, dict(type='TestTimeAug', transforms=[[pack]])]


def _kind(step: dict) -> str:
    """Name of a transform, without a scope such as ``mmpretrain.``."""
    kind = step['type']
    return kind.rsplit('.', 1)[-1] if isinstance(kind, str) else kind.__name__


def plain_classifier(config: Config) -> ConfigDict:
    """Config of the classifier alone, a copy, without what training adds to it.

    Args:
        config: A config whose ``model`` is a classifier; of a ``DistillingClassifier`` the student
            is what remains.

    Returns:
        A model config, with its data preprocessor and without initial weights.

    Raises:
        UserError: If the config has no classifier.
    """
    kind = config.get('model', {}).get('type')
    network = MODELS.get(kind) if isinstance(kind, str) else None
    if network is None or not issubclass(network, BaseClassifier):
        raise UserError(
            f'{config.filename} has no classifier: its model.type is {kind}; give the config of a '
            'student or a fine-tuned classifier'
        )
    model = copy.deepcopy(config.model)
    if issubclass(network, DistillingClassifier):
        parts = {name: model[name] for name in STUDENT_PARTS if model.get(name) is not None}
        model = ConfigDict(type='ImageClassifier', **parts)
    model.pop('train_cfg', None)  # batch augmentations
    for part in (model, model.get('backbone') or {}):  # weights follow from a checkpoint
        part.pop('init_cfg', None)
        part.pop('pretrained', None)
    if config.get('data_preprocessor') is not None:
        model.setdefault('data_preprocessor', copy.deepcopy(config.data_preprocessor))
    return model


def member_config(member: dict[str, Any]) -> Config:
    """The config file of a member of an ensemble.

    Args:
        member: ``config`` and ``checkpoint``, paths; optionally the test-time augmentation of the
            member: ``crops``, ``crop_size`` and ``resize`` of :func:`tta_pipeline`, and ``policy``
            of :class:`~ipirm_mm.models.tta.ScoreMergingTTA`.

    Raises:
        UserError: If a key is missing or unknown, or there is no such config file.
    """
    if set(member) - {'config', 'checkpoint', *_MEMBER_OPTIONS, 'policy'} or not (
        {'config', 'checkpoint'} <= set(member)
    ):
        raise UserError(
            f'a member of an ensemble has config and checkpoint, and optionally {_MEMBER_OPTIONS} '
            f'and policy, but one has {sorted(member)}'
        )
    if not member.get('crops') and set(member) & set(_MEMBER_OPTIONS):
        raise UserError(
            f'the member {member["config"]} changes its views: name which by crops, one of '
            f'{tuple(CROPS)}'
        )
    return Config.fromfile(find_config(member['config'], 'of a member of the ensemble'))


@TRANSFORMS.register_module()
class MemberViews(BaseTransform):
    """Views of an image for each member of an ensemble, by the member's own test pipeline.

    The members may differ in resolution. What their pipelines begin with alike, reading the image
    above all, is done once.

    .. code-block:: python

        test_dataloader = dict(
            dataset=dict(pipeline=[dict(type='MemberViews', members=members)]))

    Args:
        members: Members, as for :class:`~ipirm_mm.models.tta.EnsembleClassifier`.

    Raises:
        UserError: If a member has no test pipeline, or an option of a member is out of range.
    """

    def __init__(self, members: list[dict[str, Any]]) -> None:
        pipelines = []
        for member in members:
            config = member_config(member)
            pipeline = config.get('test_dataloader', {}).get('dataset', {}).get('pipeline')
            if not pipeline:
                raise UserError(f'{member["config"]} has no test_dataloader.dataset.pipeline')
            options = {name: member[name] for name in _MEMBER_OPTIONS if name in member}
            pipelines.append(tta_pipeline(pipeline, **options) if options else list(pipeline))
        shared = []
        while all(len(p) > 1 and p[0] == pipelines[0][0] for p in pipelines):
            shared.append(pipelines[0][0])
            pipelines = [pipeline[1:] for pipeline in pipelines]
        self.shared = Compose(shared)
        self.own = [Compose(pipeline) for pipeline in pipelines]

    def transform(self, results: dict) -> dict:
        """Returns ``inputs`` and ``data_samples``, lists over the views of all members."""
        results = self.shared(results)
        packed: dict[str, list] = dict(inputs=[], data_samples=[])
        for pipeline in self.own:
            own = pipeline(copy.deepcopy(results))
            for key, views in packed.items():
                views.extend(own[key] if isinstance(own[key], list) else [own[key]])
        return packed

    def __repr__(self) -> str:
        return f'{type(self).__name__}(members={len(self.own)})'
