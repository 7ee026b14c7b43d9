"""Partitions in a checkpoint: dropped or kept by a new schedule, continued by a resumed one."""

from __future__ import annotations

from typing import Any

from ipirm_mm.partition import PartitionSet

_NAME = 'partitions.'


def adapt_partitions(
    checkpoint: dict[str, Any],
    partitions: PartitionSet,
    found: int | None,
    keep: bool,
    max_kept: int | None,
) -> str | None:
    """Adapt the partitions in a checkpoint to a schedule, before the model loads it.

    A resumed schedule continues with the partitions of its checkpoint, which may include ones that
    it was started with. A new schedule (``load_from``) starts without partitions, or keeps them.

    Args:
        checkpoint: What was loaded; changed in place.
        partitions: The model's partitions, with room for those that the schedule will find.
        found: Number of partitions that the schedule had found; None for a new schedule.
        keep: Whether a new schedule keeps the partitions.
        max_kept: Maximum number of partitions to keep; None for all.

    Returns:
        A line for the log; None if there is nothing to say.
    """
    states = [checkpoint.get('state_dict', checkpoint), checkpoint.get('ema_state_dict', {})]
    line = None
    for state in states:
        for key in [key for key in state if key.endswith(f'{_NAME}assignments')]:
            prefix = key[: -len('assignments')]
            if prefix not in (_NAME, f'module.{_NAME}') or f'{prefix}count' not in state:
                continue
            saved, count = state[key], int(state[f'{prefix}count'])
            if found is not None:
                room = partitions.capacity + max(0, count - found)
                room = room if max_kept is None else min(room, max(max_kept, count))
                if saved.shape[1] == partitions.num_images and room > len(saved):
                    state[key] = _resized(saved[:count], room)
                continue
            same = (
                saved.shape[1] == partitions.num_images
                and int(state[f'{prefix}num_subsets_saved']) == partitions.num_subsets
            )
            if keep and same:
                used = saved[:count] if max_kept is None else saved[:count][-max_kept:]
                room = partitions.capacity + len(used)
                room = room if max_kept is None else min(room, max_kept)
                if count and state is states[0]:
                    line = f'load_from: {len(used)} partitions of the checkpoint are kept'
            else:
                used, room = saved[:0], partitions.capacity
                if count and state is states[0]:
                    reason = 'to keep them, set PartitionUpdateHook.keep_loaded=True'
                    if saved.shape[1] != partitions.num_images:
                        reason = (
                            f'they divide {saved.shape[1]} images, and the training set has '
                            f'{partitions.num_images}'
                        )
                    elif not same:
                        reason = (
                            f'they have {int(state[f"{prefix}num_subsets_saved"])} subsets, and '
                            f'model.num_subsets is {partitions.num_subsets}'
                        )
                    line = (
                        f'load_from: {count} partitions of the checkpoint are dropped ({reason})'
                    )
            if used.shape[1] != partitions.num_images:
                used = used.new_zeros(0, partitions.num_images)
            state[key] = _resized(used, room)
            state[f'{prefix}count'] = state[f'{prefix}count'].new_tensor(len(used))
            state[f'{prefix}num_subsets_saved'] = state[f'{prefix}count'].new_tensor(
                partitions.num_subsets
            )
    return line


def _resized(assignments: Any, room: int) -> Any:
    """Rows of partitions, with zeros up to a number of rows."""
    result = assignments.new_zeros(max(room, len(assignments)), assignments.shape[1])
    result[: len(assignments)] = assignments
    return result
