"""Views of an image for each member of an ensemble."""

from __future__ import annotations

import copy
from typing import Any

from mmcv.transforms import BaseTransform, Compose
from mmengine.config import Config
from mmpretrain.registry import TRANSFORMS

from ipirm_mm.errors import UserError
from ipirm_mm.resources import find_config
from ipirm_mm.utils import with_names

from ..pipelines import one_pipeline
from .tta import CROPS
from .view_pipeline import tta_pipeline

# Options of a member that are arguments of `tta_pipeline`.
_VIEW_OPTIONS = ('crops', 'crop_size', 'resize')


def member_config(member: dict[str, Any]) -> Config:
    """Load the config file of a member of an ensemble.

    Args:
        member: ``config`` and ``checkpoint``, paths. Optionally the member's test-time
            augmentation: ``crops``, ``crop_size`` and ``resize`` of :func:`tta_pipeline`, and
            ``policy`` of :class:`~ipirm_mm.models.tta.ScoreMergingTTA`.

    Returns:
        The config.

    Raises:
        UserError: If a key is missing or unknown, or there is no such config file.
    """
    if set(member) - {'config', 'checkpoint', *_VIEW_OPTIONS, 'policy'} or not (
        {'config', 'checkpoint'} <= set(member)
    ):
        raise UserError(
            f'a member of an ensemble has config and checkpoint, and optionally {_VIEW_OPTIONS} '
            f'and policy, but one has {sorted(member)}'
        )
    if not member.get('crops') and set(member) & set(_VIEW_OPTIONS):
        raise UserError(
            f'the member {member["config"]} sets crop_size or resize: set crops too, one of '
            f'{tuple(CROPS)}'
        )
    return with_names(
        Config.fromfile(find_config(member['config'], 'of a member of the ensemble'))
    )


@TRANSFORMS.register_module()
class MemberViews(BaseTransform):
    """Views of an image for each member of an ensemble, by the member's own test pipeline.

    The members may differ in resolution. The steps that all pipelines begin with, such as reading
    the image, run once.

    .. code-block:: python

        test_dataloader = dict(
            dataset=dict(pipeline=[dict(type='MemberViews', members=members)]))

    Args:
        members: Members, as for :class:`~ipirm_mm.models.classifiers.EnsembleClassifier`.

    Raises:
        UserError: If a member has no test pipeline, or an option of a member is out of range.
    """

    def __init__(self, members: list[dict[str, Any]]) -> None:
        pipelines = []
        for member in members:
            config = member_config(member)
            name = f'{member["config"]}: test_dataloader'
            pipeline = one_pipeline(config.get('test_dataloader'), name)
            options = {name: member[name] for name in _VIEW_OPTIONS if name in member}
            pipelines.append(tta_pipeline(pipeline, **options) if options else list(pipeline))
        shared = []
        while all(len(p) > 1 and p[0] == pipelines[0][0] for p in pipelines):
            shared.append(pipelines[0][0])
            pipelines = [pipeline[1:] for pipeline in pipelines]
        self.shared = Compose(shared)
        self.own = [Compose(pipeline) for pipeline in pipelines]

    def transform(self, results: dict) -> dict:
        """Make ``inputs`` and ``data_samples``, lists over the views of all members."""
        results = self.shared(results)
        packed: dict[str, list] = dict(inputs=[], data_samples=[])
        for pipeline in self.own:
            own = pipeline(copy.deepcopy(results))
            for key, views in packed.items():
                views.extend(own[key] if isinstance(own[key], list) else [own[key]])
        return packed

    def __repr__(self) -> str:
        return f'{type(self).__name__}(members={len(self.own)})'
