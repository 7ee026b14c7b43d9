"""Merge the predictions of several classifiers into an ensemble.

    python tools/ensemble.py MEMBER MEMBER ... [--policy mean|gmean|tsharpen|weighted|
                             weighted_tsharpen]
                             [--fit [MEMBER ...]] [--save-weights FILE.json]
                             [--weights FILE.json] [--out FILE.pkl] [--submission FILE.csv]

A MEMBER is a file that `tools/test.py --out` wrote, or CONFIG:CHECKPOINT. The latter is run on the
config's test_dataloader, and for --fit also on its val_dataloader.

Weights minimize the log-loss on a validation split:

    python tools/ensemble.py a_test.pkl b_test.pkl --fit a_val.pkl b_val.pkl

Files name their models, so members are matched by the names of their configs, in any order. The
model final_NAME, trained on train and val, takes the weight that was fitted with NAME. Images that
are reported, or that a member was trained on, are refused for the fit.

Prints the accuracy of each member and of the ensemble, the gain over the best member, and how
often members disagree. Intervals are 95 % bootstrap intervals over the images.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import re
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
    check_disjoint,
    check_not_trained_on,
    check_same_images,
    disagreement,
    fit_weights,
    format_interval,
    is_path,
    load_predictions,
    map_classes,
    save_predictions,
    save_submission,
    shared_images,
    split_root,
)
from ipirm_mm.functional import merge_label_scores, merge_scores
from ipirm_mm.functional.scores import POLICIES, WEIGHTED_POLICIES
from ipirm_mm.models.classifiers import (
    load_member_weights,
    match_members,
    member_names,
    model_name,
)
from ipirm_mm.utils import atomic_write, check_writable
from ipirm_mm.visualization import format_table

# Number of images whose scores are saved with weights, to recognize them.
SAMPLE = 16
TEST_TOOL = Path(__file__).with_name('test.py')
# The colon of CONFIG:CHECKPOINT, not those of a config's name, ipirm_mm::...
MEMBER = re.compile(r'(?<!:):(?!:)')


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument('members', nargs='+', help='FILE.pkl or CONFIG:CHECKPOINT')
    parser.add_argument(
        '--policy',
        choices=POLICIES,
        default='mean',
        help='how the probabilities of the members are merged (default: mean)',
    )
    parser.add_argument(
        '--fit',
        nargs='*',
        metavar='MEMBER',
        help='fit the weights on the predictions of these, one per member; '
        'without any, members CONFIG:CHECKPOINT are run on their val_dataloader (implies --policy '
        'weighted unless it is weighted_tsharpen)',
    )
    parser.add_argument(
        '--weights',
        metavar='FILE.json',
        help='use the weights in this file (implies --policy weighted unless it is '
        'weighted_tsharpen)',
    )
    parser.add_argument(
        '--save-weights', metavar='FILE.json', help='write the fitted weights to this file'
    )
    parser.add_argument(
        '--out', metavar='FILE.pkl', help='write the predictions of the ensemble to this file'
    )
    parser.add_argument(
        '--submission',
        metavar='FILE.csv',
        help='write the name and the class of each image to this file',
    )
    parser.add_argument(
        '--work-dir',
        type=Path,
        default=Path('work_dirs/ensemble'),
        help='folder for the predictions of members CONFIG:CHECKPOINT '
        '(default: work_dirs/ensemble)',
    )
    cli.add_tta_arguments(parser, implied=' (for members CONFIG:CHECKPOINT)')
    cli.add_cfg_options(parser)
    args = parser.parse_intermixed_args()  # options may stand between files
    cli.check_tta_arguments(parser, args)
    if args.fit is not None and args.weights:
        parser.error('--fit computes weights and --weights reads them: give only one of the two')
    if args.save_weights and args.fit is None:
        parser.error('--save-weights needs --fit')
    if args.fit is not None or args.weights:
        args.policy = args.policy if args.policy in WEIGHTED_POLICIES else 'weighted'
    elif args.policy in WEIGHTED_POLICIES:
        parser.error(f'--policy {args.policy} needs --fit or --weights')
    return args


def read(member: str, number: int, split: str, args: argparse.Namespace) -> Predictions:
    """Read the predictions of a member; a checkpoint is run first.

    Args:
        member: ``FILE.pkl`` or ``CONFIG:CHECKPOINT``.
        number: Number of the member.
        split: ``'test'`` or ``'val'``.
        args: Arguments of the command.
    """
    config, *checkpoint = MEMBER.split(member, maxsplit=1)
    if not checkpoint or member.endswith('.pkl'):
        if member.endswith('.py'):
            raise UserError(f'{member} is a config: give its checkpoint too, {member}:CHECKPOINT')
        print(f'reading {member}', flush=True)  # half a minute for 50,000 images of 1,000 classes
        return load_predictions(member)
    name = model_name(config)
    path = args.work_dir / f'{name}_{number}_{split}.pkl'
    command = [sys.executable, str(TEST_TOOL), config, *checkpoint, '--out', str(path)]
    command += ['--work-dir', str(args.work_dir / name)]
    for option, value in (
        ('--tta-crops', args.tta_crops),
        ('--tta-policy', args.tta_policy),
        ('--tta-crop-size', args.tta_crop_size),
        ('--tta-resize', args.tta_resize),
    ):
        command += [option, str(value)] if value else []
    command += ['--val'] if split == 'val' else []
    options = cli.cfg_option_words()
    command += ['--cfg-options', *options] if options else []
    path.parent.mkdir(parents=True, exist_ok=True)
    path.unlink(missing_ok=True)  # a file of an earlier run must not be read instead
    if subprocess.run(command).returncode:
        # The command above has said why, as its one `error:` line.
        sys.exit(f'{member} was not run on its {split} split')
    return load_predictions(str(path))


def fingerprint(predictions: Predictions) -> dict[str, Any]:
    """What is saved with weights of the images that they are fitted on, to recognize them.

    The hash is of the paths below the folder that all are in, which may move. A sample of images
    with their scores tells whether images of the same names are the same.
    """
    if not all(map(is_path, predictions.images)):
        return {}
    below = sorted(split_root(predictions.images)[1])
    sample = sorted(range(len(predictions.images)), key=predictions.images.__getitem__)[:SAMPLE]
    return dict(
        images_sha256=hashlib.sha256('\n'.join(below).encode()).hexdigest(),
        sample_images=[predictions.images[n] for n in sample],
        sample_scores=[predictions.scores[n].tolist() for n in sample],
    )


def fitted_on(weights: dict[str, Any], members: list[Predictions]) -> bool:
    """Whether saved weights were fitted on the images of these members."""
    reported = members[0]
    own = fingerprint(reported)
    if not own or weights.get('images_sha256') != own['images_sha256']:
        return False
    if 'sample_images' not in weights:
        return True
    images, scores = weights['sample_images'], torch.tensor(weights['sample_scores'])
    sample = Predictions(scores.to(reported.scores), None, images, 'the fitted images')
    return bool(shared_images(sample, reported))


def names_of(members: list[Predictions]) -> list[str]:
    """Names by which weights find their members."""
    sources = [(member.source, member.name) for member in members]
    return member_names([(s.name, s.checkpoint) if s else (name, None) for s, name in sources])


def fitted_weights(members: list[Predictions], args: argparse.Namespace) -> list[float]:
    """Fit the weights of the members on other images, and save them with ``--save-weights``."""
    names = args.fit or args.members
    if len(names) != len(members):
        raise UserError(f'--fit has {len(names)} members, but there are {len(members)}')
    held_out = [read(name, number, 'val', args) for number, name in enumerate(names)]
    places = match_members(names_of(held_out), names_of(members), 'the predictions of --fit are')
    held_out = [held_out[place] for place in places]
    held_out = map_classes([members[0], *held_out])[1:]
    check_same_images(held_out)
    check_disjoint(held_out, members)
    check_not_trained_on(
        held_out, 'fit on predictions of the same model trained without them, NAME for final_NAME'
    )
    first = held_out[0]
    if first.labels is None:
        raise UserError(f'{first.name} has no labels to fit weights to: predict a labeled split')
    if first.scores.shape[1] != members[0].scores.shape[1]:
        raise UserError(
            f'{first.name} and {members[0].name} are of {first.scores.shape[1]} and '
            f'{members[0].scores.shape[1]} classes: fit on the same members'
        )
    scores = torch.stack([member.scores for member in held_out])
    weights = fit_weights(scores, first.labels, policy=args.policy).tolist()
    if args.save_weights:
        record = dict(
            weights=weights,
            policy=args.policy,
            members=names_of(held_out),
            checkpoints=[member.source and member.source.checkpoint for member in held_out],
            fitted_on=[member.name for member in held_out],
            images_of=first.source.predicted if first.source else [],
            num_images=len(first.images),
            **fingerprint(first),
        )
        atomic_write(args.save_weights, json.dumps(record, indent=1))
    return weights


def saved_weights(members: list[Predictions], path: str, policy: str) -> list[float]:
    """Read weights; refuse those of other members or fitted on these images."""
    saved = load_member_weights(path, policy)
    weights = saved.for_members(names_of(members))
    if fitted_on(saved.record, members):
        raise UserError(
            f'the weights in {path} were fitted on the images of {members[0].name}: report '
            'another split'
        )
    return weights


def rows_of(
    members: list[Predictions], ensemble: Predictions, weights: list[float] | None
) -> list[dict[str, Any]]:
    """Rows of the table: one per member, and one for the ensemble."""
    rows = []
    found = [] if ensemble.labels is None else [member.correct().double() for member in members]
    best = max(found, key=lambda correct: float(correct.sum()), default=None)
    for number, member in enumerate([*members, ensemble]):
        row: dict[str, Any] = dict(name=member.name)
        if weights is not None and number < len(members):
            row['weight'] = f'{weights[number]:.3f}'
        if best is not None:
            correct = member.correct().double()
            row['accuracy'] = f'{100 * float(correct.mean()):.2f}'
            row['interval'] = format_interval(bootstrap_interval(correct), '.2f')
            if member is ensemble:
                gain = correct - best
                row['gain'] = f'{100 * float(gain.mean()):+.2f}'
                row['gain_interval'] = format_interval(bootstrap_interval(gain), '+.2f')
        rows.append(row)
    return rows


def main() -> None:
    args = parse_args()
    for path in (args.save_weights, args.out, args.submission):
        check_writable(path)
    check_writable(args.work_dir, folder=True)
    members = [read(name, number, 'test', args) for number, name in enumerate(args.members)]
    members = map_classes(members)
    check_same_images(members)
    weights = None
    if args.fit is not None:
        weights = fitted_weights(members, args)
    elif args.weights:
        weights = saved_weights(members, args.weights, args.policy)
    scores = torch.stack([member.scores for member in members])
    first = members[0]
    merge = merge_scores if first.rule is None else merge_label_scores
    ensemble = Predictions(
        merge(scores, args.policy, weights),
        first.labels,
        first.images,
        f'ensemble of {len(members)}, {args.policy}',
        next((member.classes for member in members if member.classes), None),
        first.rule,
    )
    columns = [('name', 'member')]
    columns += [('weight', 'weight')] if weights is not None else []
    if ensemble.labels is not None:
        columns += [
            ('accuracy', ensemble.measure),
            ('interval', '95 % interval'),
            ('gain', 'gain over best'),
            ('gain_interval', '95 % interval'),
        ]
    print(f'\n{len(ensemble.images)} images, {ensemble.scores.shape[1]} classes\n')
    print(format_table(rows_of(members, ensemble, weights), columns))
    predicted = scores if first.rule is None else torch.stack([m.predicted() for m in members])
    differ = f'{100 * disagreement(predicted):.1f} %'
    print(
        f'\nTwo members predict different classes for {differ} of the images (mean over all '
        'pairs).'
    )
    if ensemble.labels is None:
        print(f'The images have no labels: there is no {ensemble.measure}.')
    if args.out:
        save_predictions(args.out, ensemble)
    if args.submission:
        save_submission(args.submission, ensemble)
    for path in (args.out, args.submission, args.save_weights):
        if path:
            print(f'wrote {path}')


if __name__ == '__main__':
    cli.run(main)
