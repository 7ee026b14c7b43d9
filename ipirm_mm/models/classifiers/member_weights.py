"""Weights of an ensemble in a file, and the members that they belong to."""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mmengine.logging import print_log

from ipirm_mm.errors import UserError
from ipirm_mm.functional.scores import WEIGHTED_POLICIES

# A config of this name and that of its training on train alone: final_kl_r50 and kl_r50.
FINAL = 'final_'
REMEDY = 'make it by tools/ensemble.py ... --fit ... --save-weights FILE.json'


@dataclass(frozen=True)
class MemberWeights:
    """Weights of an ensemble as ``tools/ensemble.py --save-weights`` wrote them.

    Attributes:
        path: The file.
        weights: Weight of each member.
        members: Name of each member, see :func:`member_names`.
        record: All that the file holds.
    """

    path: str
    weights: list[float]
    members: list[str]
    record: dict[str, Any]

    def for_members(self, names: Sequence[str]) -> list[float]:
        """Weights of the members of an ensemble, in their order.

        Args:
            names: Names of its members, see :func:`member_names`.

        Returns:
            Weight of each member.

        Raises:
            UserError: If the numbers differ, or a member has no weight in the file.
        """
        if len(self.weights) != len(names):
            raise UserError(
                f'{self.path} has {len(self.weights)} weights, but there are {len(names)} members'
            )
        places = match_members(self.members, names, f'the weights in {self.path} are')
        return [self.weights[place] for place in places]


def load_member_weights(path: str, policy: str) -> MemberWeights:
    """Read the weights that ``tools/ensemble.py --save-weights`` wrote.

    Args:
        path: The file.
        policy: Policy that the weights are for.

    Returns:
        The weights and the names of their members.

    Raises:
        UserError: If the file is missing, has no valid weights, does not name their members, or
            has weights of another policy.
    """
    try:
        with open(path, encoding='utf-8') as stream:
            record = json.load(stream)
        weights = [float(weight) for weight in record['weights']]
        members = record.get('members')
        fitted_for = record.get('policy', 'weighted')  # older files name no policy
    except OSError as error:
        raise UserError(f'there is no file of weights {path}: {REMEDY}') from error
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise UserError(f'{path} is no file of weights ({error}): {REMEDY}') from error
    if not weights or not min(weights) >= 0 or not 0 < sum(weights) < float('inf'):
        raise UserError(f'{path} has weights {weights}, which must not be negative: {REMEDY}')
    if (
        not isinstance(members, list)
        or len(members) != len(weights)
        or not all(isinstance(member, str) for member in members)
    ):
        raise UserError(
            f'{path} has {len(weights)} weights, but its members are {members}, where the name of '
            f'the member of each weight is needed: {REMEDY}'
        )
    if policy in WEIGHTED_POLICIES and policy != fitted_for:
        raise UserError(
            f'the weights in {path} were fitted for the policy {fitted_for!r}, but the policy is '
            f'{policy!r}: fit them for it, by tools/ensemble.py ... --policy {policy} --fit ...'
        )
    return MemberWeights(path, weights, members, record)


def model_name(config: str) -> str:
    """Name of a model: that of its config file, without folder and ending.

    A file ``config.py``, as :func:`ipirm_mm.pretrain` and :func:`ipirm_mm.distill` write it, says
    nothing: its model has the name of the folder.

    Args:
        config: Path of the config, or its name (``ipirm_mm::...``).
    """
    path = Path(config.rpartition('::')[2])
    return path.absolute().parent.name if path.stem == 'config' else path.stem


def member_names(models: Sequence[tuple[str, str | None]]) -> list[str]:
    """Names by which weights find their members: those of their configs.

    Args:
        models: Name and checkpoint of each member. For a file of predictions that does not say
            which model made them, the path of the file instead of a name.

    Returns:
        Name of each member. Where several have one config, as with several seeds, their
        checkpoints are added: ``NAME:CHECKPOINT``.
    """
    names = [name for name, _ in models]
    return [
        f'{name}:{os.path.normpath(checkpoint)}' if names.count(name) > 1 and checkpoint else name
        for name, checkpoint in models
    ]


def match_members(fitted: Sequence[str], members: Sequence[str], what: str) -> list[int]:
    """Find the place of each member among those that weights were fitted with.

    A member has the same name there; or it is a final member, ``final_NAME``, which was trained on
    the validation split too, and ``NAME`` is the same model trained on the training split alone.
    Weights cannot be fitted with final members, because they have seen the images of the fit.

    If files of predictions do not say which models made them, and so no name is known, the members
    are taken in their order, and a line says so.

    Args:
        fitted: Names of the members of the fit, see :func:`member_names`.
        members: Names of as many members of the ensemble.
        what: Beginning of an error message, such as ``'the weights in w.json are'``.

    Returns:
        For each member its place in ``fitted``.

    Raises:
        UserError: If a member is not among those of the fit.
    """
    left = dict(enumerate(fitted))
    places: dict[int, int] = {}
    for alias in (str, lambda name: name.removeprefix(FINAL)):
        for number, member in enumerate(members):
            found = next((n for n, name in left.items() if name == alias(member)), None)
            if number not in places and found is not None:
                places[number] = found
                del left[found]
    if len(places) == len(members):
        return [places[number] for number in range(len(members))]
    if not places and all(map(_is_file, fitted)) | all(map(_is_file, members)):
        print_log(
            f'{what} of {", ".join(fitted)}; these files do not all name their models, so '
            f'{", ".join(members)} are taken to be in this order',
            logger='current',
        )
        return list(range(len(members)))
    missing = next(member for number, member in enumerate(members) if number not in places)
    raise UserError(
        f'{what} of {", ".join(fitted)}, and {missing} is none of them: give the same members, '
        f'or for NAME its final version {FINAL}NAME'
    )


def _is_file(name: str) -> bool:
    """Whether a name is that of a file of predictions, of a model that is not known."""
    return name.endswith(('.pkl', '.pickle'))
