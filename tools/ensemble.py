"""Combine classifiers: files of predictions, or checkpoints that it runs first.

    tools/ensemble.py MEMBER MEMBER ... [--policy mean|gmean|tsharpen|weighted]
                      [--fit [MEMBER ...]] [--save-weights FILE.json] [--weights FILE.json]
                      [--out FILE.pkl] [--submission FILE.csv]

A MEMBER is a file that `tools/test.py --out` wrote, or CONFIG:CHECKPOINT, which is run on the
config's test_dataloader, and for --fit on its val_dataloader.

Weights are fitted to the log-loss on a validation split, never on what is reported:

    tools/ensemble.py a_test.pkl b_test.pkl --policy weighted --fit a_val.pkl b_val.pkl

Prints the accuracy of each member and of the ensemble, the gain over the best member, and how
often members disagree. Intervals are 95 % bootstrap intervals over the images.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import torch

from ipirm_mm import cli
from ipirm_mm.errors import UserError
from ipirm_mm.evaluation import (
    Predictions,
    bootstrap_interval,
    check_apart,
    check_match,
    disagreement,
    fit_weights,
    load_predictions,
    save_predictions,
    save_submission,
    write_whole,
)
from ipirm_mm.functional import merge_scores
from ipirm_mm.functional.scores import POLICIES
from ipirm_mm.models.tta import CROPS, VIEW_POLICIES, load_member_weights
from ipirm_mm.visualization import format_table

TEST_TOOL = Path(__file__).with_name('test.py')


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument('members', nargs='+', help='FILE.pkl or CONFIG:CHECKPOINT')
    parser.add_argument('--policy', choices=POLICIES, default='mean', help='default mean')
    parser.add_argument(
        '--fit',
        nargs='*',
        metavar='MEMBER',
        help='fit the weights on these, one a member in the same order; without any, members '
        'CONFIG:CHECKPOINT are run on their val_dataloader (implies --policy weighted)',
    )
    parser.add_argument(
        '--weights', help='use the weights in this file (implies --policy weighted)'
    )
    parser.add_argument('--save-weights', help='write the fitted weights (.json)')
    parser.add_argument('--out', help='write the predictions of the ensemble (.pkl)')
    parser.add_argument('--submission', help='write file names and classes (.csv)')
    parser.add_argument(
        '--work-dir', type=Path, default=Path('work_dirs/ensemble'), help='for predictions it runs'
    )
    parser.add_argument('--tta-crops', choices=tuple(CROPS), help='of the members that it runs')
    parser.add_argument('--tta-policy', choices=VIEW_POLICIES, help='likewise')
    cli.add_cfg_options(parser)
    args = parser.parse_args()
    # As they were written, for the processes that run members.
    args.cfg_words = words_after(sys.argv, '--cfg-options')
    if args.fit is not None and args.weights:
        parser.error('--fit makes weights and --weights reads them: give one')
    if args.save_weights and args.fit is None:
        parser.error('--save-weights needs --fit')
    if args.fit is not None or args.weights:
        args.policy = 'weighted'
    elif args.policy == 'weighted':
        parser.error('--policy weighted needs --fit or --weights')
    return args


def words_after(words: list[str], option: str) -> list[str]:
    """The words of an option that takes several."""
    if option not in words:
        return []
    rest = words[words.index(option) + 1 :]
    end = next((n for n, word in enumerate(rest) if word.startswith('--')), len(rest))
    return rest[:end]


def read(member: str, number: int, split: str, args: argparse.Namespace) -> Predictions:
    """Predictions of a member, which are made first if it is a checkpoint.

    Args:
        member: ``FILE.pkl`` or ``CONFIG:CHECKPOINT``.
        number: Which member it is.
        split: ``'test'`` or ``'val'``.
        args: Arguments of the command.
    """
    config, colon, checkpoint = member.partition(':')
    if not colon or member.endswith('.pkl'):
        if member.endswith('.py'):
            raise UserError(f'{member} is a config: give its checkpoint too, {member}:CHECKPOINT')
        print(f'reading {member}', flush=True)  # half a minute for 50,000 images of 1,000 classes
        return load_predictions(member)
    path = args.work_dir / f'{Path(config).stem}_{number}_{split}.pkl'
    command = [sys.executable, str(TEST_TOOL), config, checkpoint, '--out', str(path)]
    command += ['--work-dir', str(args.work_dir / Path(config).stem)]
    for option, value in (('--tta-crops', args.tta_crops), ('--tta-policy', args.tta_policy)):
        command += [option, value] if value else []
    command += ['--val'] if split == 'val' else []
    command += ['--cfg-options', *args.cfg_words] if args.cfg_words else []
    path.parent.mkdir(parents=True, exist_ok=True)
    path.unlink(missing_ok=True)  # not to be taken for what this run makes
    if subprocess.run(command).returncode:
        raise UserError(f'{member} could not be run on its {split} split, see above')
    return load_predictions(str(path))


def fingerprint(predictions: Predictions) -> str | None:
    """Hash of the paths of images, by which weights know what they were fitted on."""
    if not all(os.sep in image for image in predictions.images):
        return None
    return hashlib.sha256('\n'.join(sorted(predictions.images)).encode()).hexdigest()


def fitted_weights(members: list[Predictions], args: argparse.Namespace) -> list[float]:
    """Weights for the members, fitted on other images, and saved if that is asked for."""
    names = args.fit or args.members
    if len(names) != len(members):
        raise UserError(f'--fit has {len(names)} members, but there are {len(members)}')
    held_out = [read(name, number, 'val', args) for number, name in enumerate(names)]
    check_match(held_out)
    check_apart(held_out, members)
    first = held_out[0]
    if first.labels is None:
        raise UserError(f'{first.name} has no labels to fit weights to: predict a labelled split')
    if first.scores.shape[1] != members[0].scores.shape[1]:
        raise UserError(
            f'{first.name} and {members[0].name} are of {first.scores.shape[1]} and '
            f'{members[0].scores.shape[1]} classes: fit on the same members'
        )
    weights = fit_weights(torch.stack([m.scores for m in held_out]), first.labels).tolist()
    if args.save_weights:
        record = dict(
            weights=weights,
            members=[member.name for member in members],
            fitted_on=[member.name for member in held_out],
            num_images=len(first.images),
            images_sha256=fingerprint(first),
        )
        write_whole(args.save_weights, json.dumps(record, indent=1).encode())
    return weights


def saved_weights(members: list[Predictions], path: str) -> list[float]:
    """Weights of a file, if they are for so many members, and fitted on other images."""
    weights = load_member_weights(path)
    if len(weights) != len(members):
        raise UserError(f'{path} has {len(weights)} weights, but there are {len(members)} members')
    seen = json.loads(Path(path).read_text()).get('images_sha256')
    if seen is not None and seen == fingerprint(members[0]):
        raise UserError(
            f'the weights in {path} were fitted on the images of {members[0].name}: report '
            'another split'
        )
    return weights


def rows_of(
    members: list[Predictions], ensemble: Predictions, weights: list[float] | None
) -> list[dict[str, Any]]:
    """A row for each member and one for the ensemble."""
    rows = []
    hits = [] if ensemble.labels is None else [member.hits() for member in members]
    best = max(range(len(hits)), key=lambda n: int(hits[n].sum()), default=None)
    for number, member in enumerate([*members, ensemble]):
        row: dict[str, Any] = dict(name=member.name)
        if weights is not None and number < len(members):
            row['weight'] = f'{weights[number]:.3f}'
        if best is not None:
            correct = member.hits().double()
            low, high = bootstrap_interval(correct)
            row['accuracy'] = f'{100 * float(correct.mean()):.2f}'
            row['interval'] = f'{100 * low:.2f} to {100 * high:.2f}'
            if member is ensemble:
                gain = correct - hits[best].double()
                low, high = bootstrap_interval(gain)
                row['gain'] = f'{100 * float(gain.mean()):+.2f}'
                row['gain_interval'] = f'{100 * low:+.2f} to {100 * high:+.2f}'
        rows.append(row)
    return rows


def main() -> None:
    args = parse_args()
    members = [read(name, number, 'test', args) for number, name in enumerate(args.members)]
    check_match(members)
    weights = None
    if args.fit is not None:
        weights = fitted_weights(members, args)
    elif args.weights:
        weights = saved_weights(members, args.weights)
    scores = torch.stack([member.scores for member in members])
    ensemble = Predictions(
        merge_scores(scores, args.policy, weights),
        members[0].labels,
        members[0].images,
        f'ensemble of {len(members)}, {args.policy}',
    )
    columns = [('name', 'member')]
    columns += [('weight', 'weight')] if weights is not None else []
    if ensemble.labels is not None:
        columns += [
            ('accuracy', 'accuracy'),
            ('interval', '95 % interval'),
            ('gain', 'over the best'),
            ('gain_interval', '95 % interval'),
        ]
    print(f'\n{len(ensemble.images)} images, {ensemble.scores.shape[1]} classes\n')
    print(format_table(rows_of(members, ensemble, weights), columns))
    print(
        f'\nTwo members predict different classes for {100 * disagreement(scores):.1f} % of the '
        'images (mean over pairs).'
    )
    if ensemble.labels is None:
        print('The images have no labels: there is no accuracy.')
    if args.out:
        save_predictions(args.out, ensemble)
    if args.submission:
        save_submission(args.submission, ensemble)
    for path in (args.out, args.submission, args.save_weights):
        if path:
            print(f'wrote {path}')


if __name__ == '__main__':
    cli.run(main)
