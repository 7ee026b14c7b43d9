"""All measures of disentanglement at once, and what they need of a data set."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from ipirm_mm.errors import UserError

from .disentanglement import dci, explicitness, irs, modularity


def disentanglement_scores(
    fit: tuple[Tensor, Tensor],
    held_out: tuple[Tensor, Tensor],
    names: Sequence[str],
    l1_weight: float = 0.01,
    progress: Callable[[float, str], None] | None = None,
) -> dict[str, float]:
    """Compute DCI, IRS, modularity and explicitness.

    Args:
        fit: Features ``(N, D)`` and factors ``(N, F)`` to which classifiers are fitted.
        held_out: Features ``(M, D)`` and factors ``(M, F)`` of other images, on which
            informativeness and explicitness are measured. IRS and modularity, which fit nothing,
            are measured on all images.
        names: Name of each factor.
        l1_weight: Strength of the penalty of DCI's classifiers. Defaults to 0.01.
        progress: Called with the fraction that is done, 0 to 1, and the name of the measure.
            Defaults to None.

    Returns:
        ``dci_disentanglement``, ``dci_completeness``, ``dci_informativeness``, ``irs``,
        ``modularity`` and ``explicitness``; and the third and the last of each factor, as
        ``explicitness_NAME``. NaN where a measure is undefined.

    Raises:
        ValueError: If shapes do not fit, a factor has one value only, or features are not finite.
    """

    def part(begin: float, end: float, name: str) -> Callable[[float], None] | None:
        if progress is None:
            return None
        return lambda fraction: progress(begin + (end - begin) * fraction, name)

    measured = dci(*fit, held_out, l1_weight, part(0.0, 0.7, 'DCI'))
    explicit = explicitness(*fit, held_out, progress=part(0.7, 0.9, 'explicitness'))
    features, factors = (torch.cat(both) for both in zip(fit, held_out))
    if progress is not None:
        progress(0.9, 'IRS, modularity')
    scores = dict(
        dci_disentanglement=measured.disentanglement,
        dci_completeness=measured.completeness,
        dci_informativeness=float(measured.informativeness.mean()),
        irs=irs(features, factors).score,
        modularity=modularity(features, factors).score,
        explicitness=float(explicit.mean()),
    )
    for f, name in enumerate(names):
        scores[f'dci_informativeness_{name}'] = float(measured.informativeness[f])
        scores[f'explicitness_{name}'] = float(explicit[f])
    return scores


def check_factors(factors: Tensor, names: Sequence[str], images: str) -> None:
    """Check that each factor has several values.

    Args:
        factors: ``(N, F)`` integers.
        names: Name of each factor.
        images: What the images are, for the message: ``'the images of knn_bank'``.

    Raises:
        UserError: If one has not.
    """
    for f, name in enumerate(names):
        if len(torch.unique(factors[:, f])) < 2:
            raise UserError(
                f'factor {name!r} has the same value in all of the {len(factors)} images of '
                f'{images}, but at least two values are needed: leave it out of the factors, or '
                'use more images'
            )


def missing_factor(option: str, name: str) -> str:
    """Say that images lack a factor.

    Args:
        option: Which option names the factors.
        name: Name of the factor.

    Returns:
        The message.
    """
    return (
        f'{option} names {name!r}, but an image has no such field with one integer of at least 0: '
        'have the data pipeline set it (TintByFactor sets factor) and pack it, '
        f"PackInputs(meta_keys=('sample_idx', {name!r}))"
    )
