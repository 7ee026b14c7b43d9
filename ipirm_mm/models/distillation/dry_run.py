"""The dry run: student and teachers see one image before there is any, for its shapes."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import product
from typing import Any

import torch
from torch import nn

from ipirm_mm.errors import UserError

from ..utils import candidate_channels, candidate_sizes, input_channels
from .outputs import NetworkOutputs, collect_outputs
from .recorders import PreActivationRecorder
from .teacher import FrozenTeacher, first_line, network_name


@torch.no_grad()
def dry_run(
    student: Any,
    teachers: Sequence[FrozenTeacher],
    recorders: Sequence[PreActivationRecorder],
    input_size: int | Sequence[int] | None = None,
) -> tuple[NetworkOutputs, list[NetworkOutputs]]:
    """Run student and teachers on one image of zeros.

    Images have as many channels as the first convolutions take. The size is the first one on
    which all networks run, of those that they name and the usual ones.

    Args:
        student: The student, in ``eval`` mode.
        teachers: The teachers.
        recorders: Recorders of the student's stages.
        input_size: Height and width of the image, or one number. Defaults to None: it is found.

    Returns:
        Outputs of the student and of each teacher.

    Raises:
        UserError: If there is no image that all networks take.
    """
    networks = [student.backbone, *(_reader_of_images(frozen) for frozen in teachers)]
    _check_channels(student, teachers, networks)
    channels = candidate_channels(networks, student.data_preprocessor)
    if input_size is None:
        sizes = candidate_sizes(networks)
    else:
        pair = (input_size,) * 2 if isinstance(input_size, int) else tuple(input_size)
        sizes = [(int(pair[0]), int(pair[-1]))]
    failures: list[str] = []
    # No network draws random numbers in `eval` mode; one that does must not change the weights
    # that are drawn after it.
    with torch.random.fork_rng(devices=[]):
        for count, size in product(channels, sizes):
            image = torch.zeros(1, count, *size)
            name = f'the student ({network_name(student)})'
            try:
                own = collect_outputs(student, image, recorders, dry_run=True)
                outputs = []
                for number, frozen in enumerate(teachers):
                    name = f'teacher {number} ({network_name(frozen.network)})'
                    outputs.append(frozen(image, training=False, dry_run=True))
                return own, outputs
            except UserError:
                raise
            except Exception as error:
                failures.append(f'{name} says about {count}x{size[0]}x{size[1]}: ')
                failures[-1] += first_line(error)
                cause = error
    tried = ', '.join(f'{height}x{width}' for height, width in sizes)
    raise UserError(
        f'student and teachers cannot run on the same image; tried {tried} with '
        f'{" or ".join(map(str, channels))} channels. {failures[0]}. Set '
        'DistillingClassifier.input_size to the size of the training images, or use networks that '
        'take the same images'
    ) from cause


def _reader_of_images(frozen: FrozenTeacher) -> nn.Module:
    """The part of a teacher that reads the image."""
    return getattr(frozen.network, 'backbone', frozen.network)


def _check_channels(
    student: Any, teachers: Sequence[FrozenTeacher], networks: list[nn.Module]
) -> None:
    """Check that student and teachers take images of the same number of channels."""
    own = input_channels(networks[0])
    for number, (frozen, network) in enumerate(zip(teachers, networks[1:])):
        theirs = input_channels(network)
        if own and theirs and own != theirs:
            raise UserError(
                f'teacher {number} ({network_name(frozen.network)}) takes images of {theirs} '
                f'channels, but the student ({network_name(student)}) of {own}: they see the same '
                'images, so set backbone.in_channels of one to that of the other'
            )
