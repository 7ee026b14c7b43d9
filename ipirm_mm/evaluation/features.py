"""Features of a whole data set, extracted on all ranks."""

from __future__ import annotations

import copy
import logging
from collections.abc import Callable, Sequence
from typing import Any

import torch
from mmengine.device import get_device
from mmengine.dist import all_gather, get_world_size
from mmengine.logging import print_log
from mmengine.model import is_model_wrapper
from mmengine.runner import Runner
from mmpretrain.models.utils import TwoNormDataPreprocessor
from torch import Tensor
from torch.utils.data import DataLoader

from ipirm_mm.datasets import number_images, one_class, why_not_one_class
from ipirm_mm.errors import UserError
from ipirm_mm.models.utils import dataset_class_names, pooled_feature
from ipirm_mm.utils import ProgressBar


def build_loader(cfg: dict[str, Any], seed: int | None = None) -> DataLoader:
    """Build a data loader for evaluation from its config.

    What MMPretrain's tools add to the loaders of a run is added here too, and what PyTorch refuses
    without workers is left out.

    Args:
        cfg: Config of the data loader; not changed.
        seed: Seed of its sampler and workers. Defaults to None: a random one.

    Returns:
        The data loader.
    """
    cfg = copy.deepcopy(dict(cfg))
    cfg.setdefault('collate_fn', dict(type='default_collate'))
    cfg.setdefault('num_workers', 0)
    if cfg.get('batch_sampler') is None:
        cfg.setdefault('batch_size', 32)
    cfg.setdefault('sampler', dict(type='DefaultSampler', shuffle=False))
    if not cfg['num_workers']:
        for key in ('persistent_workers', 'prefetch_factor', 'timeout'):
            cfg.pop(key, None)
    if get_device() == 'cpu':
        cfg['pin_memory'] = False
    return Runner.build_dataloader(cfg, seed=seed)


@torch.no_grad()
def extract_features(
    model: Any,
    dataloader: DataLoader,
    project: Callable[[Tensor], Tensor] | None = None,
    description: str = 'features',
    factors: Sequence[str] = ('factor',),
    project_views: Callable[[list[Tensor], Tensor], list[Tensor]] | None = None,
) -> dict[str, Any]:
    """Extract the features of all images of a data loader.

    Each rank extracts its part; then all ranks hold all features, in the order of the images and
    each image once (samplers repeat images so that all ranks have the same number, and wrappers
    such as ``RepeatDataset`` repeat them as well). If fewer images were used than the data set
    has, a warning says how many. The model runs in eval mode; its mode is restored afterwards.

    Args:
        model: A model of MMPretrain, also wrapped for distributed training.
        dataloader: Data loader of MMEngine, with ``sample_idx`` in its samples and one or several
            views per image.
        project: Maps images ``(B, C, H, W)`` to features ``(B, D)``. Defaults to None: the last
            feature map of the backbone, averaged over positions.
        description: Text of the progress bar. Defaults to ``'features'``.
        factors: Names of the fields of the samples that hold known factors, one integer per
            image. Defaults to ``('factor',)``, which ``TintByFactor`` sets.
        project_views: Maps the views of a batch, and the numbers of its images ``(B,)`` long, to
            rows of features ``(B, ...)``, instead of each view by itself. Defaults to None.

    Returns:
        A dict with ``features``, a list of one tensor ``(N, D)`` per view (what
        ``project_views`` returns, if it is given); ``sample_idx``
        ``(N,)`` long, the number of each image (see
        :class:`~ipirm_mm.datasets.ImageNumbers`); ``num_images``, the number of images of the data
        set; ``classes``, their names or None; and ``gt_label`` and each of ``factors``, ``(N,)``
        long, if each image has one. If images have no or several labels, ``why_no_label`` says
        which.

    Raises:
        UserError: If there is no image, or samples have no ``sample_idx``.
    """
    model = model.module if is_model_wrapper(model) else model
    project = project or (lambda images: pooled_feature(model, images))
    numbers = number_images(dataloader.dataset)
    was_training = model.training
    model.eval()
    views: list[list[Tensor]] = []
    factors = [name for name in factors if name not in ('sample_idx', 'gt_label')]
    known: dict[str, list[Any]] = {key: [] for key in ('sample_idx', 'gt_label', *factors)}
    try:
        batches = len(dataloader)
        # A pass over a DataLoader draws from torch's global generator, even without workers. The
        # random numbers of the training must not depend on how often features are extracted.
        with torch.random.fork_rng(devices=[]), ProgressBar(description) as bar:
            for number, data in enumerate(dataloader):
                inputs, samples = _prepare(model.data_preprocessor, _stacked(data))
                index = [_image_of(sample) for sample in samples]
                known['sample_idx'] += index
                if project_views:
                    image_numbers = torch.tensor(index, device=inputs[0].device)
                    views.append(project_views(inputs, image_numbers))
                else:
                    views.append([project(images) for images in inputs])
                for sample in samples:
                    known['gt_label'].append(_label_of(sample))
                    for name in factors:
                        known[name].append(sample.get(name))
                bar((number + 1) / batches)
    finally:
        model.train(was_training)
    if not views:
        raise UserError(
            f'{description}: the data loader gives no batch: check its data set, and that '
            'drop_last does not leave out its only one'
        )
    features = [torch.cat(view) for view in zip(*views)]
    device = features[0].device
    sample_idx = _gather(torch.tensor(known['sample_idx'], device=device))
    # Keep the first sample of each index; the sort is stable.
    sample_idx, order = torch.sort(sample_idx, stable=True)
    first = torch.ones_like(sample_idx, dtype=torch.bool)
    first[1:] = sample_idx[1:] != sample_idx[:-1]
    order = order[first]
    result: dict[str, Any] = dict(
        features=[_gather(view)[order] for view in features],
        sample_idx=sample_idx[first],
        num_images=numbers.num_images,
        classes=dataset_class_names(dataloader.dataset),
    )
    if len(order) < numbers.num_images:
        print_log(
            f'{description}: used {len(order)} of {numbers.num_images} images; the others were '
            'rejected by the pipeline, or left out by the sampler or drop_last',
            logger='current',
            level=logging.WARNING,
        )
    for key in ('gt_label', *factors):
        classes = [one_class(value) for value in known[key]]
        # -1 where there is no one class, so that every rank has as many rows.
        rows = torch.tensor([-1 if c is None else c for c in classes], device=device)
        rows = _gather(rows)[order]
        if bool((rows >= 0).all()):
            result[key] = rows
        elif key == 'gt_label':
            result['why_no_label'] = why_not_one_class(known[key])
    return result


def labels_as_of(
    query: dict[str, Any], bank: dict[str, Any], query_name: str, bank_name: str
) -> Tensor:
    """Labels of the images to classify, numbered as those of the labeled images are.

    Args:
        query: What :func:`extract_features` returned for the images to classify.
        bank: What it returned for the labeled images.
        query_name: Name of the former in the config, for the message.
        bank_name: Name of the latter.

    Returns:
        ``(M,)``, long. They are mapped where both data sets name their classes, in another order.

    Raises:
        UserError: If a class of the images to classify is none of the labeled images.
    """
    labels, own, theirs = query['gt_label'], query['classes'], bank['classes']
    if own is None or theirs is None or own == theirs or int(labels.max()) >= len(own):
        return labels
    order = torch.tensor([theirs.index(name) if name in theirs else -1 for name in own])
    mapped = order.to(labels.device)[labels]
    if bool((mapped < 0).any()):
        name = own[int(labels[mapped < 0][0])]
        raise UserError(
            f'the images of {query_name} have the class {name!r}, which is none of {bank_name} '
            f'({theirs[0]!r}, ...): use data sets of the same classes, or, if only the spelling '
            'differs, give the names by metainfo.classes of the data set'
        )
    return mapped


def _stacked(data: Any) -> dict[str, Any]:
    """A batch whose images are stacked, also if its loader has no ``collate_fn`` that does it."""
    if not isinstance(data, dict) or not {'inputs', 'data_samples'} <= data.keys():
        raise UserError(
            f'a batch is a {type(data).__name__}, but features need a dict with inputs and '
            'data_samples: let the pipeline of the data set end with PackInputs'
        )
    inputs, samples = data['inputs'], data['data_samples']
    if not isinstance(inputs, list) or not isinstance(samples, list):
        return data
    several = isinstance(inputs[0], (list, tuple))  # views, each a list of images
    image = inputs[0][0] if several else inputs[0]
    if not isinstance(image, Tensor) or image.ndim != 3:
        return data
    try:
        stacked = [torch.stack(list(view)) for view in inputs] if several else torch.stack(inputs)
        return {**data, 'inputs': stacked}
    except RuntimeError as error:
        raise UserError(
            'the images of a batch have different sizes: put a transform that gives all the same '
            'size (Resize, CenterCrop) into the pipeline'
        ) from error


def _prepare(preprocessor: Any, data: dict[str, Any]) -> tuple[list[Tensor], list[Any]]:
    """Prepare a batch: its views, and its samples."""
    views = data['inputs']
    if isinstance(preprocessor, TwoNormDataPreprocessor) and isinstance(views, (list, tuple)):
        # To it the second of two is the target, which is normalized differently.
        prepared = [preprocessor({**data, 'inputs': view}, False) for view in views]
        return [batch['inputs'] for batch in prepared], prepared[0]['data_samples']
    data = preprocessor(data, False)
    inputs = data['inputs']
    inputs = list(inputs) if isinstance(inputs, (list, tuple)) else [inputs]
    return inputs, data['data_samples']


def _image_of(sample: Any) -> int:
    if 'sample_idx' not in sample:
        raise UserError(
            'features need sample_idx of each image: let PackInputs keep it (it does by default; '
            "with meta_keys of your own, add 'sample_idx')"
        )
    return int(sample.sample_idx)


def _label_of(sample: Any) -> Any:
    """The label of a sample; its scores, if these are all that is known."""
    label = sample.get('gt_label')
    return sample.get('gt_score') if label is None else label


def _gather(rows: Tensor) -> Tensor:
    """Concatenate the rows of all ranks; ranks may have different numbers of rows."""
    if get_world_size() == 1:
        return rows
    counts = [int(count) for count in all_gather(torch.tensor([len(rows)], device=rows.device))]
    padded = rows.new_zeros(max(counts), *rows.shape[1:])
    padded[: len(rows)] = rows
    return torch.cat([part[:count] for part, count in zip(all_gather(padded), counts)])
