"""The page of a training, written anew after each epoch."""

from __future__ import annotations

import io
import json
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from mmengine.dist import is_main_process
from mmengine.hooks import Hook
from mmengine.runner import Runner
from mmpretrain.registry import HOOKS
from PIL import Image

from ipirm_mm.errors import UserError
from ipirm_mm.evaluation import build_loader, extract_features
from ipirm_mm.options import check_whole
from ipirm_mm.utils import atomic_write, duration
from ipirm_mm.visualization import (
    SampleImages,
    Section,
    draw_map,
    draw_neighbors,
    nearest_neighbors,
    principal_components,
    read_partitions,
    tsne,
    write_training_page,
)

from ..passes import counts_iterations

QUERIES, NEIGHBORS = 6, 8
# Partitions whose pictures are on the page: the newest ones.
PARTITIONS_SHOWN = 4


@HOOKS.register_module()
class TrainingPageHook(Hook):
    """Write ``index.html`` into the work folder after each epoch.

    The page has the losses, the k-NN accuracy (of :class:`KNNHook`), the partitions as pictures
    with their agreement with earlier ones and with the classes, the nearest neighbors of sample
    images, a map of their features, and the time left. A browser loads it again by itself while
    the training goes on. The pictures go to TensorBoard as well. A page that cannot be written is
    a warning and does not end the training.

    .. code-block:: python

        custom_hooks = [dict(type='TrainingPageHook', sample_dataloader=dict(...), interval=10)]

    Args:
        sample_dataloader: Config of a data loader of the images to show, one view each: some
            hundreds. Defaults to None: neither neighbors nor a map.
        interval: Number of epochs between new features of these images; the last epoch always has
            them. Defaults to 10.
        title: Heading. Defaults to ``'Training'``.
        settings: What is trained: from names to values, shown at the end. Defaults to nothing.
        next_steps: Commands for afterwards, by what they are for; shown when the training has
            ended. Defaults to nothing.

    Raises:
        UserError: If ``interval`` is out of range, or the loop counts iterations.
    """

    # After the hooks that evaluate, and before ExactResumeHook.
    priority = 'VERY_LOW'

    def __init__(
        self,
        sample_dataloader: dict[str, Any] | None = None,
        interval: int = 10,
        title: str = 'Training',
        settings: Mapping[str, Any] | None = None,
        next_steps: Mapping[str, str] | None = None,
    ) -> None:
        check_whole('TrainingPageHook.interval', interval)
        self.loader_cfg = sample_dataloader
        self.interval = interval
        self.title = title
        self.settings = dict(settings or {})
        self.next_steps = dict(next_steps or {})
        self._loader: Any = None
        self._epochs: list[dict[str, float]] = []
        self._pictures: dict[str, bytes] = {}
        self._began = (0.0, 0)

    def before_train(self, runner: Runner) -> None:
        """Read what an interrupted run had written."""
        if counts_iterations(runner):
            raise UserError(
                'TrainingPageHook counts epochs, but the training counts iterations: use '
                'train_cfg=dict(by_epoch=True, max_epochs=...), or remove the hook'
            )
        self._began = (time.monotonic(), runner.epoch)
        try:
            saved = json.loads((self._folder(runner) / 'epochs.json').read_text())
        except (OSError, ValueError):
            saved = []
        self._epochs = [row for row in saved if row['epoch'] <= runner.epoch]
        for path in sorted(self._folder(runner).glob('*.png')):
            self._pictures[path.stem] = path.read_bytes()
        self._write(runner, runner.epoch, new_pictures=False)

    def after_train_epoch(self, runner: Runner) -> None:
        """Write the page, with new pictures if they are due."""
        done = runner.epoch + 1
        last = done == runner.max_epochs
        due = self.loader_cfg is not None and (done % self.interval == 0 or last)
        if due:
            self._draw(runner, done, last)
        if is_main_process():
            self._epochs.append(_figures(runner, done))
        self._write(runner, done, new_pictures=due)

    @staticmethod
    def _folder(runner: Runner) -> Path:
        return Path(runner.work_dir) / 'page'

    def _draw(self, runner: Runner, done: int, last: bool) -> None:
        """Extract the features of the sample on all ranks, and draw them on the first."""
        if self._loader is None:
            self._loader = build_loader(self.loader_cfg or {}, seed=runner.seed)
        data = extract_features(runner.model, self._loader, description='page: features')
        features = data['features'][0].float().cpu()
        if not is_main_process() or len(features) < 3:
            return
        images = SampleImages(self._loader.dataset, data['sample_idx'].tolist())
        step = max(len(images) // QUERIES, 1)
        queries = list(range(step // 2, len(images), step))[:QUERIES]
        near = nearest_neighbors(features, queries, NEIGHBORS)
        grid = draw_neighbors(images, queries, near)
        maps = {f'principal components, epoch {done}': principal_components(features)}
        other = tsne(features) if last else None
        if other is not None:
            maps[f't-SNE, epoch {done}'] = other
        kinds = data.get('gt_label')
        drawn = draw_map(maps, None if kinds is None else kinds.cpu(), data.get('classes'))
        self._pictures = dict(neighbors=_png(grid), map=drawn)
        for name, picture in (('neighbors', grid), ('map', _pixels(drawn))):
            runner.visualizer.add_image(name, picture, step=done)

    def _write(self, runner: Runner, done: int, new_pictures: bool) -> None:
        if not is_main_process():
            return
        try:
            for name, png in self._pictures.items() if new_pictures else ():
                atomic_write(self._folder(runner) / f'{name}.png', png)
            atomic_write(self._folder(runner) / 'epochs.json', json.dumps(self._epochs))
            self._write_page(runner, done)
        except Exception as error:  # of any type: a page must not end a training of days
            runner.logger.warning(
                f'the page {Path(runner.work_dir) / "index.html"} cannot be written '
                f'({type(error).__name__}: {error}); the training goes on'
            )

    def _write_page(self, runner: Runner, done: int) -> None:
        total = runner.max_epochs
        began, first = self._began
        left = (time.monotonic() - began) / max(done - first, 1) * (total - done)
        if done == total:
            status = f'All {total} epochs are done.'
        elif done == first:
            status = f'Epoch {done + 1} of {total} is under way.'
        else:
            status = f'{done} of {total} epochs are done; about {duration(left)} left.'
        records = read_partitions(Path(runner.work_dir))
        newest = self._epochs[-1] if self._epochs else {}
        names = dict(loss='loss', knn='k-NN accuracy, %', seconds='seconds per epoch')
        write_training_page(
            Path(runner.work_dir) / 'index.html',
            self.title,
            status,
            done / total,
            {
                **{names[key]: f'{newest[key]:.4g}' for key in names if key in newest},
                'partitions': len(records),
            },
            _curves(self._epochs, records),
            [*_partition_sections(Path(runner.work_dir), records), *self._sections()],
            self.settings,
            self.next_steps if done == total else None,
        )

    def _sections(self) -> list[Section]:
        found = []
        if 'neighbors' in self._pictures:
            text = 'Left: sample images. To the right of each: its nearest neighbors among them.'
            found.append(Section('Nearest neighbors', (), {text: self._pictures['neighbors']}))
        if 'map' in self._pictures:
            text = 'Features of the sample images; the colors are their classes, if they have any.'
            found.append(Section('Map of the features', (), {text: self._pictures['map']}))
        return found


def _figures(runner: Runner, done: int) -> dict[str, float]:
    """What the message hub holds of an epoch: means of the losses, and what was measured."""
    hub, steps = runner.message_hub, len(runner.train_dataloader)
    row = dict(epoch=float(done))
    for name, scalar in hub.log_scalars.items():
        kind, _, short = name.partition('/')
        if kind == 'train' and (short == 'penalty' or short.startswith(('loss', 'risk'))):
            row[short] = float(scalar.mean(steps))
    if 'train/time' in hub.log_scalars:
        row['seconds'] = float(hub.get_scalar('train/time').mean(steps)) * steps
    accuracy = hub.log_scalars.get('val/knn_monitor/top1')
    if accuracy is not None:
        row['knn'] = float(accuracy.current())
    return {key: value for key, value in row.items() if np.isfinite(value)}


def _curves(
    epochs: list[dict[str, float]], records: list[dict[str, Any]]
) -> dict[str, dict[str, list[tuple[float, float]]]]:
    """Losses, k-NN accuracy, and how much partitions agree with each other and the classes."""
    losses = dict.fromkeys(
        key for row in epochs for key in row if key not in ('epoch', 'knn', 'seconds')
    )
    agreement = {
        'with the most alike earlier partition': [
            (record['epoch'], max(record['nmi_with_earlier']))
            for record in records
            if record['nmi_with_earlier']
        ],
        'with the classes': [
            (record['epoch'], record['nmi_with_class'])
            for record in records
            if 'nmi_with_class' in record
        ],
    }
    found = {
        'loss and its parts, mean of each epoch': {
            name: [(row['epoch'], row[name]) for row in epochs if name in row] for name in losses
        },
        'k-NN accuracy, %': {
            'k-NN': [(row['epoch'], row['knn']) for row in epochs if 'knn' in row]
        },
    }
    if len(records) > 1:
        found['partitions: normalized mutual information'] = agreement
    return found


def _partition_sections(work_dir: Path, records: list[dict[str, Any]]) -> list[Section]:
    pictures = {}
    for record in records[-PARTITIONS_SHOWN:]:
        path = work_dir / 'partitions' / f'partition_{record["number"]:02d}.png'
        sizes = record['sizes']
        text = (
            f'Partition {record["number"]}, before epoch {record["epoch"] + 1}: {len(sizes)} '
            f'subsets of {min(sizes)} to {max(sizes)} images'
        )
        if 'nmi_with_class' in record:
            text += (
                f'; normalized mutual information with the classes {record["nmi_with_class"]:.2f}'
            )
        if path.is_file():
            pictures[text] = path.read_bytes()
    if not records:
        return []
    text = (
        'Sample images of each subset. What the images of a subset have in common is what the '
        'encoder took for a semantic; the training then makes similarities hold in every subset.'
    )
    return [Section('Partitions', [text], pictures)]


def _png(picture: np.ndarray) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(picture).save(buffer, format='png')
    return buffer.getvalue()


def _pixels(png: bytes) -> np.ndarray:
    return np.asarray(Image.open(io.BytesIO(png)).convert('RGB'))
