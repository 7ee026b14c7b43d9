"""Check 3: images, labels and loaders of the train, validation and test data."""

from __future__ import annotations

import os
import time
from collections import Counter
from typing import Any

from mmengine.dataset import BaseDataset
from mmpretrain.models import BaseClassifier
from mmpretrain.structures import DataSample

from ipirm_mm.datasets import one_class, why_not_one_class
from ipirm_mm.datasets.wrappers import plain_datasets
from ipirm_mm.models.utils.classes import dataset_class_names
from ipirm_mm.models.utils.label_rules import wrong_labels
from ipirm_mm.utils import ProgressBar

from .building import Setup, first_batch, monitor_loaders
from .duplicates import contents, shared_images
from .findings import Findings, counted, listed
from .images import (
    Seen,
    chosen,
    dangling_links,
    leave_out,
    missing_files,
    num_readers,
    read_images,
    record_of,
)

PLURAL = {'is': 'are', 'has': 'have'}


def check_data(setup: Setup, findings: Findings, sample: int | None) -> None:
    """Check the data of all loaders; loaders of the same data are checked once.

    Args:
        setup: What was built.
        findings: Gets the findings.
        sample: Number of images to read of each data set; None for all.
    """
    known: list[tuple[str, Any]] = []
    for name, loader in setup.loaders.items():
        config = _dataset_config(setup, name)
        same = next((one for one, other in known if config is not None and other == config), None)
        if same is not None:
            findings.add('ok', name, f'the same data as {same}')
            continue
        known.append((name, config))
        with findings.check(name):
            _check_images(setup, findings, name, loader.dataset, sample)
        if name not in ('train_dataloader', 'val_dataloader'):  # those run in the dry run
            with findings.check(name):
                first_batch(loader)
        with findings.check(name):
            _check_links(findings, name, loader.dataset)
        with findings.check(name):
            _check_labels(setup, findings, name, loader.dataset)
    with findings.check('duplicates'):
        _check_duplicates(setup, findings, [name for name, _ in known], sample)


def _dataset_config(setup: Setup, name: str) -> Any:
    """Config of the data set of a loader; None if it is not known."""
    options = dict(monitor_loaders(setup)).get(name) or setup.cfg.get(name) or {}
    dataset = options.get('dataset')
    return {**dataset} if isinstance(dataset, dict) else None


def _check_images(
    setup: Setup, findings: Findings, name: str, dataset: Any, sample: int | None
) -> None:
    """Read images, and say what is wrong with them, by the kind of fault."""
    read = good = total = 0
    faults: dict[str, list[Seen]] = {}
    for part in plain_datasets(dataset) or [dataset]:
        indices = chosen(len(part), sample)
        total += len(part)
        broken: set[int] = set()
        began = time.perf_counter()
        for seen, index in zip(read_images(part, indices, f'{name}: images'), indices):
            if seen.fault:
                faults.setdefault(seen.fault, []).append(seen)
                broken.add(index)
            elif name == 'train_dataloader':
                setup.sample_bytes = max(setup.sample_bytes, seen.size)
        if name == 'train_dataloader' and indices:
            processes = max(1, num_readers(part, len(indices)))
            setup.image_seconds = (time.perf_counter() - began) * processes / len(indices)
        read += len(indices)
        good += len(indices) - len(broken)
        if isinstance(part, BaseDataset):
            if len(indices) < len(part):
                for index, file in missing_files(part, f'{name}: files'):
                    if index not in broken:
                        faults.setdefault('is missing', []).append(Seen(file, 'is missing'))
                        broken.add(index)
            leave_out(part, broken)  # the checks that follow go on without them
    for fault, several in faults.items():
        reason = several[0].reason
        findings.add(
            'error',
            name,
            f'{counted(len(several), "image")} {_number(fault, len(several))}: '
            f'{listed([seen.name for seen in several])}; '
            + (reason or 'replace the file, or take it out of the data set'),
        )
    some = '' if read == total else f', a sample of {total:,}: --sample all reads all'
    findings.add('ok', name, f'{counted(good, "image")} of {read:,} can be read{some}')


def _number(fault: str, count: int) -> str:
    """``'are truncated'`` of ``'is truncated'``, for several."""
    if count == 1:
        return fault
    first, _, rest = fault.partition(' ')
    return f'{PLURAL.get(first, first)} {rest}'


def _check_links(findings: Findings, name: str, dataset: Any) -> None:
    links = [link for part in plain_datasets(dataset) for link in dangling_links(part)]
    if links:
        folder = os.path.commonpath([os.path.dirname(link) for link in links])
        findings.add(
            'warning',
            name,
            f'links in the folders of the images that lead to no file: {len(links)} '
            f'({listed(links)}); the data set leaves such images out or fails at them: copy what '
            f'they lead to, or remove them (`find {folder} -xtype l` lists them)',
        )


def _check_labels(setup: Setup, findings: Findings, name: str, dataset: Any) -> None:
    """Count the images of each class, and compare with the outputs of the classifier."""
    records: list[dict[str, Any]] = []
    with ProgressBar(f'{name}: labels') as bar:
        for part in plain_datasets(dataset):
            for index in range(len(part)):
                bar((index + 1) / len(part))
                record = record_of(part, index)
                kept = {key: record.get(key) for key in ('gt_label', 'img_path')}
                records.append(kept)
    classifier = isinstance(setup.model, BaseClassifier)
    trained_on = classifier and name == 'train_dataloader'
    labels = [record['gt_label'] for record in records]
    classes = [one_class(label) for label in labels]
    if not records:
        return
    if None in classes:
        if trained_on and all(label is None for label in labels):
            wrong = wrong_labels([_sample(records[0])], None)
            findings.add('error', name, str(wrong))
        else:
            findings.add('ok', name, f'the images {why_not_one_class(labels)}')
        return
    outputs = getattr(getattr(setup.model, 'head', None), 'num_classes', None)
    outputs = outputs if classifier and isinstance(outputs, int) else None
    counts = Counter(classes)
    if outputs is not None:
        outside = [n for n, label in enumerate(classes) if label is not None and label >= outputs]
        if outside:
            wrong = wrong_labels([_sample(records[outside[0]])], outputs)
            findings.add('error', name, f'{wrong} ({counted(len(outside), "image")} of this kind)')
    names = dataset_class_names(dataset)
    expected = outputs or (len(names) if names else max(label or 0 for label in counts) + 1)
    empty = [label for label in range(expected) if not counts[label]]
    # Self-supervised training needs no classes.
    needed = classifier or name != 'train_dataloader'
    if len(counts) == 1 and needed:
        setup.can_train = setup.can_train and not trained_on
        findings.add(
            'error' if trained_on else 'warning',
            name,
            f'all {len(records):,} images have the class {next(iter(counts))}: a classifier needs '
            'at least two classes, one folder (or number in the list file) for each; check '
            f'{name}.dataset',
        )
    elif empty and needed:
        shown = [str(names[n]) if names and n < len(names) else str(n) for n in empty]
        findings.add(
            'warning',
            name,
            f'{len(empty)} of {expected} classes have no images: {listed(shown)}; add images, or '
            'check the order and number of the classes',
        )
    largest, smallest = counts.most_common(1)[0], counts.most_common()[-1]
    findings.add(
        'ok',
        name,
        f'{counted(len(counts), "class")}, with {smallest[1]:,} to '
        f'{counted(largest[1], "image")} each',
    )


def _sample(record: dict[str, Any]) -> DataSample:
    sample = DataSample()
    if record['gt_label'] is not None:
        sample.set_gt_label(one_class(record['gt_label']))
    sample.set_field(record['img_path'] or '', 'img_path', field_type='metainfo')
    return sample


def _check_duplicates(
    setup: Setup, findings: Findings, names: list[str], sample: int | None
) -> None:
    """Find images of the validation and test splits that the training has seen."""
    if 'train_dataloader' not in names:
        return
    others = [name for name in ('val_dataloader', 'test_dataloader') if name in names]
    if not others:
        return
    train = contents(setup.loaders['train_dataloader'].dataset, 'train_dataloader: content')
    for name in others:
        own = contents(setup.loaders[name].dataset, f'{name}: content', sample)
        pairs = shared_images(train, own)
        count = sum(map(len, own.files.values())) + sum(map(len, own.arrays.values()))
        if pairs:
            shown = [f'{one} is {other}' for one, other in pairs]
            findings.add(
                'warning',
                name,
                f'images that are in the training set too: {len(pairs)} of {count:,} '
                f'({listed(shown)}); accuracy on them says nothing: remove them from '
                'one of the two',
            )
        elif count:
            findings.add('ok', name, 'no image is in the training set too')
