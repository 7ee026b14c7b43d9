"""Search for the best test-time augmentation of a classifier: crops, sizes and policies.

    python tools/search_tta.py CONFIG CHECKPOINT [--resize 256 288 ...] [--crop-size 224 256 ...]

For each pair of a resize and a crop size, the network predicts the ten crops of each image of the
validation split once. The probabilities are kept in --work-dir, and all other choices of views and
policies are computed from them. Prints accuracies, the highest first, and the command that tests
with the best choice. The best of many choices is best partly by luck: report its accuracy on
another split.
"""

from __future__ import annotations

import argparse
import copy
import hashlib
import itertools
import os
import shlex
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from mmengine.config import Config
from mmengine.device import get_device
from mmengine.registry import init_default_scope
from mmengine.runner import Runner

from ipirm_mm import cli
from ipirm_mm.datasets import one_pipeline, with_pipelines
from ipirm_mm.errors import SameCropsError, UserError
from ipirm_mm.evaluation import Predictions, bootstrap_interval, format_interval
from ipirm_mm.functional import merge_label_scores, merge_scores
from ipirm_mm.models.classifiers import model_name
from ipirm_mm.models.tta import VIEW_POLICIES, ScoreMergingTTA, tta_pipeline
from ipirm_mm.models.utils import (
    LabelRule,
    class_names,
    class_order,
    dataset_class_names,
    is_distribution,
    label_rule,
    load_classifier,
    say_unknown,
    stack_scores,
)
from ipirm_mm.utils import ProgressBar, atomic_open, check_writable
from ipirm_mm.visualization import format_table

TEST_TOOL = Path(__file__).with_name('test.py')
# The views of each choice of --tta-crops, by their numbers among the views that are predicted. Of
# ten these are top left, top right, bottom left, bottom right, center, and the same of the mirror
# image. Where a crop is as large as the image, only the image and its mirror image are.
VIEWS = dict(
    ten=dict(center=(4,), flip=(4, 9), five=(0, 1, 2, 3, 4), ten=tuple(range(10))),
    flip=dict(center=(0,), flip=(0, 1)),
)
PLAIN = 'as configured'
COLUMNS = (
    ('resize', 'resize'),
    ('crop_size', 'crop'),
    ('crops', 'views'),
    ('policy', 'policy'),
    ('accuracy', 'accuracy'),
    ('gain', 'gain'),
    ('interval', '95 % interval'),
)


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument('config', help='config of the classifier')
    parser.add_argument('checkpoint', help='its checkpoint')
    parser.add_argument(
        '--resize',
        type=int,
        nargs='+',
        metavar='PIXELS',
        help='shorter sides of the image before cropping to try (default: that of the ResizeEdge '
        'in the validation pipeline)',
    )
    parser.add_argument(
        '--crop-size',
        type=int,
        nargs='+',
        metavar='PIXELS',
        help='sides of the crops to try (default: that of the CenterCrop in the validation '
        'pipeline)',
    )
    parser.add_argument(
        '--policies',
        nargs='+',
        choices=VIEW_POLICIES,
        default=VIEW_POLICIES,
        help='how the probabilities of the views are merged (default: all)',
    )
    parser.add_argument(
        '--rows', type=int, default=20, help='maximum number of rows of the table (default: 20)'
    )
    parser.add_argument(
        '--work-dir',
        type=Path,
        default=Path('work_dirs/search_tta'),
        help='folder in which probabilities are kept (default: work_dirs/search_tta)',
    )
    cli.add_cfg_options(parser)
    return parser.parse_args()


def scores_of_views(
    cfg: Config, model: ScoreMergingTTA, args: argparse.Namespace, names: tuple[str, ...] | None
) -> tuple[torch.Tensor, torch.Tensor]:
    """Predict the views of each image of the validation split.

    Args:
        cfg: Config whose validation pipeline makes several views.
        model: The classifier.
        args: Arguments of the command. Probabilities are kept in its ``work_dir``, and read if
            they are there.
        names: Names of the classes of the classifier; None if they are not known.

    Returns:
        Probabilities ``(A, N, C)`` and labels ``(N,)``, or with several labels per image
        ``(N, C)`` bool.

    Raises:
        UserError: If an image has no label.
    """
    loader = Runner.build_dataloader(cfg.val_dataloader, seed=0)
    cache = cache_file(cfg, loader.dataset, args)
    if cache.is_file():
        print(f'probabilities of an earlier run: {cache}')
        with np.load(cache, allow_pickle=False) as arrays:
            return torch.from_numpy(arrays['scores']), torch.from_numpy(arrays['labels'])
    scores: list[torch.Tensor] = []
    labels: list[torch.Tensor] = []
    with ProgressBar(f'views of {len(loader.dataset):,} images') as bar:
        for number, data in enumerate(loader):
            views = model.predict_views(data)
            scores.append(torch.stack([stack_scores(view) for view in views]).cpu())
            labels += [label_of(sample, scores[-1].shape[2]) for sample in data['data_samples'][0]]
            bar((number + 1) / len(loader), f'{number + 1} of {len(loader)} batches')
    result = torch.cat(scores, 1), torch.stack(labels)
    several = label_rule(model.module) is not None or not is_distribution(result[0])
    if not several:
        if bool((result[1].sum(1) != 1).any()):
            raise UserError(
                'the validation split has images with several labels, or none, but the classifier '
                'predicts one label per image: give a split with one label per image'
            )
        result = result[0], result[1].int().argmax(1)
    order = class_order(
        dataset_class_names(loader.dataset),
        names,
        'the validation split',
        'the checkpoint',
    )
    if order is not None:
        result = result[0][..., order], result[1]
    with atomic_open(cache) as stream:
        np.savez(stream, scores=result[0].numpy(), labels=result[1].numpy())
    return result


def label_of(sample: Any, classes: int) -> torch.Tensor:
    """Labels of an image, ``(C,)`` bool."""
    row = torch.zeros(classes, dtype=torch.bool)
    if 'gt_label' in sample:
        if not bool((sample.gt_label < classes).all()):
            raise UserError(
                f'the validation split has class {int(sample.gt_label.max())}, but the classifier '
                f'has {classes} classes: give the validation split of its classes'
            )
        row[sample.gt_label] = True
    elif 'gt_score' in sample:  # soft labels, or several
        score = sample.gt_score
        several = not is_distribution(score[None])
        row[score >= 0.5 if several else score.argmax()] = True
    else:
        raise UserError(
            f'{sample.get("img_path", "an image")} of the validation split has no label: a search '
            'needs labels'
        )
    return row


def cache_file(cfg: Config, dataset: Any, args: argparse.Namespace) -> Path:
    """File of the probabilities, named by a hash of all that they depend on."""
    content = f'{cfg.model} {cfg.get("data_preprocessor")} {cfg.val_dataloader.dataset}'
    digest = hashlib.sha256(f'{content} {file_state(args.checkpoint)}'.encode())
    # A list or a folder of images may have changed under the same name.
    for index in range(len(dataset) if hasattr(dataset, 'get_data_info') else 0):
        info = dataset.get_data_info(index)
        state = file_state(info['img_path']) if info.get('img_path') else ''
        digest.update(f'{state} {info.get("gt_label")} {info.get("gt_score")}\n'.encode())
    return args.work_dir / f'{model_name(cfg.filename)}-{digest.hexdigest()[:12]}.npz'


def file_state(path: str) -> str:
    """Path, size and time of a file; of one that is elsewhere, its address."""
    if not os.path.exists(path):
        return path
    stat = os.stat(path)
    return f'{os.path.abspath(path)} {stat.st_size} {stat.st_mtime_ns}'


def sizes_to_try(
    center: list[dict[str, Any]], args: argparse.Namespace
) -> list[tuple[dict[str, Any], str, list[dict[str, Any]]]]:
    """Pairs of sizes that the images have room for, before any of them is predicted.

    Args:
        center: The validation pipeline.
        args: Arguments of the command.

    Returns:
        For each pair its cells of the table, the views to predict, a key of ``VIEWS``, and the
        pipeline that makes them.

    Raises:
        UserError: If there is none.
    """
    found, errors = [], []
    for resize, crop_size in itertools.product(args.resize or [None], args.crop_size or [None]):
        for crops in VIEWS:
            try:
                pipeline = tta_pipeline(center, crops, crop_size, resize)
            except SameCropsError:
                continue
            except UserError as error:
                errors.append(error)
                break
            size = pipeline[-1].get('crop_size', crop_size or '-')
            found.append((dict(resize=resize or '-', crop_size=size), crops, pipeline))
            break
    if not found:
        raise errors[0]
    for error in errors:
        print(f'left out: {error}')
    return found


def evaluate(
    predicted: str,
    scores: torch.Tensor,
    labels: torch.Tensor,
    policies: Sequence[str],
    rule: LabelRule | None,
) -> Iterator[tuple[str, str, torch.Tensor]]:
    """Yield each choice of views and policy, and how correct each image then is, ``(N,)``."""
    for crops, places in VIEWS[predicted].items():
        for policy in policies if len(places) > 1 else ['mean']:
            yield crops, policy, correct_with(scores[list(places)], labels, policy, rule)


def correct_with(
    scores: torch.Tensor, labels: torch.Tensor, policy: str, rule: LabelRule | None
) -> torch.Tensor:
    """How correct each image is, ``(N,)``: 0 or 1, or the F1 score of its labels."""
    merge = merge_scores if rule is None else merge_label_scores
    merged = Predictions(merge(scores, policy), labels, [], '', None, rule)
    return merged.correct().double()


def command(args: argparse.Namespace, best: dict[str, Any]) -> str:
    """The command that tests with a choice of views, a row of the table."""
    here = Path.cwd()
    tool = TEST_TOOL.relative_to(here) if TEST_TOOL.is_relative_to(here) else TEST_TOOL
    words = ['python', str(tool), args.config, args.checkpoint]
    if best['crops'] != PLAIN:
        words += ['--tta-crops', best['crops'], '--tta-policy', best['policy']]
        words += ['--tta-crop-size', str(best['crop_size'])] if args.crop_size else []
        words += ['--tta-resize', str(best['resize'])] if args.resize else []
    options = cli.cfg_option_words()
    words += ['--cfg-options', *options] if options else []
    return shlex.join(words)


def main() -> None:
    args = parse_args()
    check_writable(args.work_dir, folder=True)
    config = cli.load_config(args.config, args.cfg_options)
    init_default_scope(config.get('default_scope', 'mmpretrain'))
    if config.get('val_dataloader') is None:
        raise UserError(f'{args.config} has no val_dataloader to search on')
    model = ScoreMergingTTA(load_classifier(config, args.checkpoint).to(get_device()))
    model.eval()
    names = class_names(args.checkpoint, config)
    if names is None:
        say_unknown(args.checkpoint)

    center = one_pipeline(config.val_dataloader, 'val_dataloader')
    sizes = sizes_to_try(center, args)

    def scores_with(pipeline: list[dict[str, Any]]) -> tuple[torch.Tensor, torch.Tensor]:
        cfg = copy.deepcopy(config)
        cfg.val_dataloader.dataset = with_pipelines(
            cfg.val_dataloader.dataset, lambda before: pipeline
        )
        return scores_of_views(cfg, model, args, names)

    scores, labels = scores_with(tta_pipeline(center, 'center', None, None))
    rule = label_rule(model.module) or (None if labels.ndim == 1 else LabelRule())
    plain = correct_with(scores, labels, 'mean', rule)
    rows: list[dict[str, Any]] = [dict(crops=PLAIN)]
    correct = [plain]
    for size, predicted, pipeline in sizes:
        scores, labels = scores_with(pipeline)
        for crops, policy, found in evaluate(predicted, scores, labels, args.policies, rule):
            rows.append(dict(**size, crops=crops, policy=policy))
            correct.append(found)
    for row, found in zip(rows, correct):
        row['rate'] = float(found.mean())
        row['accuracy'] = f'{100 * row["rate"]:.2f}'
        row['gain'] = f'{100 * float((found - plain).mean()):+.2f}'
        row['interval'] = format_interval(bootstrap_interval(found - plain), '+.2f')
    first = rows[0]
    rows.sort(key=lambda row: -row['rate'])
    shown = rows[: args.rows]
    print(f'\n{len(plain)} images of the validation split\n')
    columns = [(key, 'F1' if rule and key == 'accuracy' else title) for key, title in COLUMNS]
    print(format_table(shown if first in shown else [*shown, first], columns))
    print(
        f'\nThis is the best of {len(rows)} choices on this split; report its '
        f'{"accuracy" if rule is None else "F1"} on '
        f'another:\n\n    {command(args, rows[0])}'
    )


if __name__ == '__main__':
    cli.run(main)
