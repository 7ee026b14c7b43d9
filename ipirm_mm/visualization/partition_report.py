"""The report of a partition: log line, TensorBoard, JSON record and picture."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from mmengine.runner import Runner
from PIL import Image
from torch import Tensor

from ipirm_mm.functional import mutual_information, normalized_mutual_information
from ipirm_mm.partition import PartitionResult
from ipirm_mm.utils import atomic_open, atomic_write

from .partition_grid import partition_grid
from .sample_images import SampleImages

# Less than this part of an equal share of the images, and a subset has collapsed; from this
# normalized mutual information on, a partition repeats an earlier one.
COLLAPSED = 0.1
REPEATED = 0.9


def report_partition(
    runner: Runner,
    result: PartitionResult,
    number: int,
    labels: Mapping[str, Any],
    time: str | None = None,
) -> None:
    """Log a new partition, and write its figures and a picture of sample images per subset.

    The figures go to the log, to TensorBoard (``partition/*``) and to
    ``work_dir/partitions/partition_NN.json``, the picture to TensorBoard and to
    ``partition_NN.png`` beside it.

    Args:
        runner: The runner of the training, for its log, work folder and training images.
        result: The partition.
        number: Number of the partition, from 1.
        labels: What is known of the images, see :func:`partition_record`.
        time: When it was found, such as ``'iteration 120'``. Defaults to None: by the epoch.
    """
    epoch = runner.epoch
    record = partition_record(result, number, epoch, labels)
    step = epoch if time is None else runner.iter
    if time is None:
        time = f'epoch {epoch + 1}'
    else:
        record['iteration'] = runner.iter
    sizes = record['sizes']
    shown = sizes if len(sizes) <= 8 else f'{len(sizes)} from {min(sizes)} to {max(sizes)}'
    nmi = ', '.join(f'{value:.3f}' for value in result.nmi) or 'none'
    runner.logger.info(
        f'Partition {number} before {time}: objective {result.objective:.4f}, sizes '
        f'{shown}, NMI with earlier ones: {nmi}, {result.seconds:.1f} s'
    )
    if 'several' in labels.get('why_no_label', ''):
        runner.logger.info(
            f'Partition {number} is not compared with classes: the images {labels["why_no_label"]}'
        )
    scalars = dict(
        objective=result.objective,
        smallest=min(sizes),
        seconds=result.seconds,
        highest_nmi=max(result.nmi, default=0.0),
        **{key: record[key] for key in record if key.endswith(('_class', '_factor'))},
    )
    for name, value in scalars.items():
        runner.visualizer.add_scalar(f'partition/{name}', value, step=step)
    warning = partition_warning(number, sizes, result.nmi)
    if warning:
        runner.logger.warning(warning)
    stem = Path(runner.work_dir) / 'partitions' / f'partition_{number:02d}'
    try:
        atomic_write(stem.with_suffix('.json'), json.dumps(record, indent=1))
        picture = partition_grid(
            SampleImages(runner.train_dataloader.dataset, labels.get('sample_idx')),
            result.assignment.cpu(),
            title=f'Partition {number}, before {time}',
        )
        runner.visualizer.add_image(f'partition_{number}', picture, step=step)
        with atomic_open(stem.with_suffix('.png')) as stream:
            Image.fromarray(picture).save(stream, format='png')
    except Exception as error:  # of any type: a picture must not end a training of days
        runner.logger.warning(
            f'Partition {number} is found and used, but its report in {stem.parent} cannot be '
            f'written ({type(error).__name__}: {error})'
        )


def partition_warning(number: int, sizes: Sequence[int], nmi: Sequence[float]) -> str | None:
    """Say in one line that a partition has collapsed, or that it repeats an earlier one.

    Args:
        number: Number of the partition, from 1.
        sizes: Sizes of its subsets.
        nmi: Normalized mutual information with each earlier partition that is kept.

    Returns:
        The line; None if the smallest subset has at least :data:`COLLAPSED` of an equal share, and
        every value of ``nmi`` is less than :data:`REPEATED`.
    """
    found = []
    if min(sizes) < COLLAPSED * sum(sizes) / len(sizes):
        found.append(
            f'its smallest subset has {min(sizes)} of {sum(sizes)} images (collapsed: less than '
            f'{COLLAPSED:.0%} of an equal share)'
        )
    if max(nmi, default=0.0) >= REPEATED:
        found.append(f'it repeats an earlier one (NMI {max(nmi):.3f}, at least {REPEATED})')
    if not found:
        return None
    return (
        f'Partition {number} adds little: {", and ".join(found)}. Subsets of more equal size '
        "(PartitionUpdateHook.solver.balance='strict') or a longer interval may help"
    )


def partition_record(
    result: PartitionResult, number: int, epoch: int, labels: Mapping[str, Any]
) -> dict[str, Any]:
    """Collect the figures of a partition, as they are written to its JSON file.

    Args:
        result: The partition.
        number: Number of the partition, from 1.
        epoch: Epoch before which it was found, from 0.
        labels: ``gt_label`` and ``factor`` of the images, ``(N,)`` long, if they are known, as
            :func:`~ipirm_mm.evaluation.extract_features` returns them.

    Returns:
        ``number``, ``epoch``, ``strategy``, ``objective``, ``sizes`` of the subsets,
        ``nmi_with_earlier`` partitions (normalized mutual information with each), ``seconds``;
        and for the class and the factor, if they are known, the mutual information in bits
        (``bits_about_class``) and normalized (``nmi_with_class``).
    """
    record: dict[str, Any] = dict(
        number=number,
        epoch=epoch,
        strategy=result.strategy,
        objective=result.objective,
        sizes=list(result.sizes),
        nmi_with_earlier=list(result.nmi),
        seconds=result.seconds,
    )
    for name, key in (('class', 'gt_label'), ('factor', 'factor')):
        values: Tensor | None = labels.get(key)
        if values is not None:
            pair = result.assignment, values.to(result.assignment.device)
            record[f'bits_about_{name}'] = float(mutual_information(*pair))
            record[f'nmi_with_{name}'] = float(normalized_mutual_information(*pair))
    return record


def read_partitions(work_dir: Path) -> list[dict[str, Any]]:
    """The records of the partitions of a run, in their order; those that are damaged left out."""
    found = []
    for path in sorted((work_dir / 'partitions').glob('partition_*.json')):
        try:
            found.append(json.loads(path.read_text()))
        except (OSError, ValueError):
            continue
    return sorted(found, key=lambda record: record['number'])
