"""Load weights, and count the keys, so that a mismatch cannot go unnoticed."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

from mmengine.logging import MMLogger
from mmengine.model import PretrainedInit, update_init_info
from mmengine.runner import CheckpointLoader
from mmengine.runner.checkpoint import load_state_dict
from mmpretrain.registry import WEIGHT_INITIALIZERS
from torch import Tensor, nn

from ipirm_mm.errors import UserError
from ipirm_mm.utils import check_checkpoint
from ipirm_mm.utils.finite import find_non_finite

# Prefixes of an encoder's keys in a checkpoint, in the order in which they are tried: alone, in a
# classifier or algorithm, under DDP, in the repositories of MoCo and SimSiam.
PREFIXES = ('', 'backbone.', 'module.', 'module.backbone.', 'encoder_q.', 'module.encoder.')


# Where checkpoints have their weights, unless they are nothing else: MMEngine, timm, others.
_STATES = ('state_dict', 'model', 'model_state_dict')


class LoadedWeights(NamedTuple):
    """Number of keys that :func:`load_weights` loaded and did not load.

    Attributes:
        loaded: Number of the module's keys that were loaded.
        missing: Keys of the module that the checkpoint lacks, or has in another shape.
        left_over: Number of keys of the checkpoint that the module lacks.
        other_shape: Those of ``missing`` that the checkpoint has in another shape, with that shape
            and the module's.
    """

    loaded: int
    missing: list[str]
    left_over: int
    other_shape: dict[str, tuple[tuple[int, ...], tuple[int, ...]]]


def plain_state(checkpoint: Any) -> Any:
    """The weights in a checkpoint, under the names that the network's own keys have.

    Args:
        checkpoint: What a file of ``torch.save`` holds: the weights, or a dict that has them under
            ``state_dict`` (MMEngine) or ``model`` (timm and others).

    Returns:
        A new dict of the weights, without the ``_orig_mod.`` that ``torch.compile`` adds to keys.
    """
    state: Any = next(
        (checkpoint[key] for key in _STATES if isinstance(checkpoint.get(key), dict)), checkpoint
    )
    plain = OrderedDict((str(key).replace('_orig_mod.', ''), state[key]) for key in state)
    if hasattr(state, '_metadata'):  # versions of layers, by which they convert old weights
        plain._metadata = state._metadata  # type: ignore[attr-defined]
    return plain


def unwrapped_state(state: Any) -> Any:
    """Weights without the ``module.`` that wrappers for distributed training put before keys.

    Args:
        state: The weights, from :func:`plain_state`.
    """
    plain = OrderedDict((key.removeprefix('module.'), value) for key, value in state.items())
    if hasattr(state, '_metadata'):
        plain._metadata = state._metadata  # type: ignore[attr-defined]
    return plain


def refuse_non_finite(weights: dict[str, tuple[Tensor, Tensor]], path: str) -> None:
    """Refuse weights that are not finite, as a training leaves them that has diverged.

    Args:
        weights: By their keys, the tensors of a checkpoint and those that the module has now: what
            is built infinite, such as the mask of an attention, may stay so.
        path: The file that they are from, for the message.

    Raises:
        UserError: If a value is not finite.
    """
    for key, (loaded, own) in weights.items():
        if find_non_finite(loaded, key) and not find_non_finite(own, key):
            raise UserError(
                f'{path} has values in {key} that are not finite (NaN or infinite), of a training '
                'that diverged: give an earlier checkpoint'
            )


def load_weights(
    module: nn.Module, path: str, prefix: str | None = None, strict: bool = False
) -> LoadedWeights:
    """Load a checkpoint into a module, count the keys, and log the counts.

    Args:
        module: The module, changed in place.
        path: Path or address of the checkpoint.
        prefix: Prefix of the module's keys in the checkpoint, such as ``'backbone.'``. Defaults to
            None: the one of :data:`PREFIXES` that fits most keys.
        strict: Whether the checkpoint must have every key of the module. Defaults to False.

    Returns:
        The counts.

    Raises:
        UserError: If no path is given, a weight is not finite, no key fits, or, with ``strict``, a
            key does not fit. The message names keys of both sides.
    """
    if not path:
        raise UserError(f'there is no checkpoint for {type(module).__name__}: give its path')
    checkpoint: Any = CheckpointLoader.load_checkpoint(path, map_location='cpu')
    if not isinstance(checkpoint, dict):
        raise UserError(
            f'{path} is no checkpoint: it holds a {type(checkpoint).__name__}, not a dict of '
            'weights; give the file that tools/train.py saved'
        )
    state = plain_state(checkpoint)
    return load_state(
        module, unwrapped_state(state) if prefix == '' else state, path, prefix, strict
    )


def load_state(
    module: nn.Module,
    state: Any,
    path: str,
    prefix: str | None = None,
    strict: bool = False,
    optional: Sequence[str] = (),
) -> LoadedWeights:
    """Load weights into a module, as :func:`load_weights` does.

    Args:
        module: The module, changed in place.
        state: The weights.
        path: The file that they are from, for messages.
        prefix: As for :func:`load_weights`. Defaults to None.
        strict: As for :func:`load_weights`. Defaults to False.
        optional: Names of children of the module whose keys may be missing all the same. Defaults
            to none.

    Returns:
        The counts.

    Raises:
        UserError: As :func:`load_weights`.
    """
    own = {
        key: value
        for key, value in module.state_dict().items()
        if key.split('.', 1)[0] not in optional
    }

    def fitting(prefix: str) -> list[str]:
        return [key for key in own if isinstance(state.get(prefix + key), Tensor)]

    if prefix is None:
        prefix = max(PREFIXES, key=lambda candidate: len(fitting(candidate)))
    present = fitting(prefix)
    # A module's own hooks may convert another shape while it loads, such as a position embedding.
    other_shape = {
        key: own[key].clone() for key in present if state[prefix + key].shape != own[key].shape
    }
    part = {key[len(prefix) :]: value for key, value in state.items() if key.startswith(prefix)}
    refuse_non_finite({key: (state[prefix + key], own[key]) for key in present}, path)
    if present:
        load_state_dict(module, part, strict=False, logger='silent')
    now = module.state_dict()
    lost = {key for key, value in other_shape.items() if value.equal(now[key])}
    loaded = [key for key in present if key not in lost]
    # Old checkpoints have no counter of batches, and nothing depends on it.
    missing = [
        key for key in own if key not in set(loaded) and not key.endswith('num_batches_tracked')
    ]
    name = type(module).__name__
    counts = (
        f'{name}: {len(loaded)} of {len(own)} keys loaded from {path}'
        + (f' (its {prefix}*)' if prefix else '')
        + f', {len(missing)} missing, {len(part) - len(present)} left over'
    )
    if not loaded or (strict and missing):
        first = missing[0]
        what = (
            f'{first} is {tuple(part[first].shape)}, not {tuple(own[first].shape)}'
            if first in lost
            else f'it lacks {prefix}{first}'
        )
        raise UserError(
            f'{path} does not fit {name}: {what}; {len(missing)} of {len(own)} keys do not fit. '
            f'The checkpoint has {next(iter(state), "nothing")}, ...: give the config that it '
            'was trained with, or another prefix'
        )
    logger = MMLogger.get_current_instance()
    (logger.warning if missing else logger.info)(
        counts + (f': {", ".join(missing[:3])}, ...' if missing else '')
    )
    shapes = {key: (tuple(part[key].shape), tuple(own[key].shape)) for key in own if key in lost}
    return LoadedWeights(len(loaded), missing, len(part) - len(present), shapes)


@WEIGHT_INITIALIZERS.register_module(name='Pretrained')
class CheckedPretrained(PretrainedInit):
    """MMEngine's ``Pretrained``, which counts the keys and refuses a file of which none fits.

    Fault bridged: the original only warns if keys do not match. A linear probe or a distillation
    then trains to the end on an encoder that was never loaded (mmselfsup issues 330, 690, 724).
    This class replaces ``init_cfg=dict(type='Pretrained', ...)`` in MMPretrain's scope.

    Args:
        checkpoint: Path or address of the checkpoint.
        prefix: Prefix of the module's keys in the checkpoint. Defaults to None: it is found.
        map_location: Not used; the file is loaded on the processor. MMEngine passes it.

    Raises:
        UserError: When called, if there is no such file, or no key fits.
    """

    def check(self, module: nn.Module) -> None:
        """Check that the file is there and whole.

        Args:
            module: The module that it is for, for the message.
        """
        path = self.checkpoint
        check_checkpoint(
            path,
            f' to start {type(module).__name__} from: train the config '
            f'{Path(path).parent.name or path} first, by tools/train.py, or give another by '
            '--cfg-options model.backbone.init_cfg.checkpoint=...',
        )

    def __call__(self, module: nn.Module) -> None:
        """Load the weights into a module.

        Args:
            module: The module, changed in place.
        """
        self.check(module)
        load_weights(module, self.checkpoint, self.prefix)
        if hasattr(module, '_params_init_info'):
            update_init_info(module, init_info=self._get_init_info())
