"""`tools/reproduce.py`: the chain from the challenge's lists to the submission."""

from __future__ import annotations

import csv
import json
import os
import re
import shlex
from pathlib import Path

import pytest
from challenge import make_challenge
from helpers import ROOT, run_tool
from mmengine.config import Config

from ipirm_mm.errors import UserError
from ipirm_mm.reproduction import TARGETS, Chain, Step, add_target, read_models
from ipirm_mm.reproduction.chain import checkpoints_of
from ipirm_mm.resources import find_by_basename

TOOL = 'tools/reproduce.py'


def find(name: str) -> str:
    return f'configs/{find_by_basename(name + ".py")}'


@pytest.fixture(scope='module')
def full_chain():
    """The chain of all targets at full scale, and their rows."""
    chain = Chain(find, data=Step('make the data', ('true',), Path('data/vipriors')))
    rows = {target: add_target(chain, target) for target in TARGETS}
    return chain, rows


def reproduce(*arguments, cwd, check=True):
    """Run the tool, and the steps of it without the seconds that their imports take."""
    return run_tool(ROOT / 'tests/data/reproduce_in_forks.py', *arguments, cwd=cwd, check=check)


def test_each_step_comes_after_what_it_needs(full_chain):
    chain, _ = full_chain
    made = set()
    for step in chain.steps.values():
        assert set(step.needs) <= made, step.title
        made.add(step.makes)


def test_each_checkpoint_in_a_command_or_config_is_made_before_it(full_chain):
    chain, _ = full_chain
    made: set[str] = set()
    for step in chain.steps.values():
        words = [word.rpartition(':')[2] for word in step.command]  # of CONFIG:CHECKPOINT
        named = {word for word in words if word.endswith(('.pth', '.json', '.pkl', '.csv'))}
        if step.config:
            config = Config.fromfile(ROOT / step.config)
            named |= set(checkpoints_of(config.model))
            # What MMEngine will write: its name has the number of the last epoch.
            last = f'work_dirs/{Path(step.config).stem}/epoch_{config.train_cfg.max_epochs}.pth'
            assert last == str(step.makes)
        written = {str(step.makes)} | {
            word
            for option, word in zip(step.command, step.command[1:])
            if option in ('--out', '--save-weights', '--submission')
        }
        assert named - written <= made, step.title
        made |= written


def test_every_row_of_the_report_is_a_target(full_chain):
    _, rows = full_chain
    found = {row.name: row.report for table in rows.values() for row in table}
    expected = {model.row: model.report for model in read_models().values() if model.table}
    assert len(expected) == 8 + 3 + 5 + 6
    assert expected.items() <= found.items()
    assert found['SimCLR+IP-IRM'] == 36.1
    assert found['ResNest200, 400'] == 67.9


def test_a_checkpoint_that_no_config_makes_is_refused(tmp_path):
    (tmp_path / 'student.py').write_text(
        "model = dict(backbone=dict(init_cfg=dict(checkpoint='work_dirs/stage/epoch_3.pth')))\n"
        'train_cfg = dict(max_epochs=1)\n'
    )
    (tmp_path / 'stage.py').write_text('model = dict()\ntrain_cfg = dict(max_epochs=4)\n')
    chain = Chain(lambda name: str(tmp_path / f'{name}.py'))
    with pytest.raises(UserError, match=r'epoch_3.pth, but the config .* makes .*epoch_4.pth'):
        chain.train('student')


def test_a_step_is_done_again_when_what_it_was_made_from_is_newer(tmp_path):
    checkpoint, result = tmp_path / 'epoch_1.pth', tmp_path / 'accuracy.json'
    step = Step('test', ('true',), result, (checkpoint,))
    assert not step.done
    checkpoint.touch()
    result.touch()
    os.utime(checkpoint, (1, 1))
    assert step.done
    os.utime(result, (0, 0))
    assert not step.done
    # Not so a training.
    assert Step('train', ('true',), result, (checkpoint,), tmp_path).done


def test_a_training_that_was_cut_off_goes_on(tmp_path):
    step = Step('train', ('python', 'train.py'), tmp_path / 'epoch_9.pth', (), tmp_path)
    assert step.words() == ['python', 'train.py']
    (tmp_path / 'epoch_3.pth').touch()
    assert step.words() == ['python', 'train.py', '--resume']
    (tmp_path / 'epoch_9.pth').touch()
    assert step.done and not step.begun


def test_page_has_the_commands_of_the_tool(full_chain):
    chain, _ = full_chain
    page = (ROOT / 'docs/reproduce.md').read_text()
    printed = set(re.findall(r'^    ((?:bash|python) .*)$', page, re.M))
    missing = [
        shlex.join(step.command)
        for step in chain.steps.values()
        if step.command[0] != 'true' and shlex.join(step.command) not in printed
    ]
    assert not missing, 'renew docs/reproduce.md by python docs/list_reproduction.py'


@pytest.mark.slow
def test_from_the_lists_to_a_submission(tmp_path):
    """One student of the smallest chain: data, Stage I, teacher, student, views, submission."""
    challenge = make_challenge(tmp_path / 'challenge', classes=6, per_class=6)
    options = ('kl_r50', '--scale', 'rehearsal', '--gpus', 1)
    data = ('--imagenet', challenge.imagenet, '--lists', challenge.lists)
    first = reproduce(*options, *data, cwd=tmp_path)
    folder = tmp_path / 'work_dirs/rehearsal'
    table = (folder / 'kl_r50.md').read_text()
    shown = json.loads((folder / 'kl_r50/accuracy.json').read_text())['accuracy/top1']
    assert f'{shown:.2f}' in table and '60.00' in table
    check_submission(folder / 'kl_r50/submission.csv', challenge)
    assert '8 steps, 1 of them done' in first.stdout
    # A second run has nothing to do; without the student's last files, these are made again.
    assert '7 of them done' in reproduce(*options, cwd=tmp_path).stdout
    (folder / 'kl_r50/accuracy.json').unlink()
    again = reproduce(*options, cwd=tmp_path).stdout
    assert re.findall(r'^\[(.*)\] (.*)$', again, re.M)[0] == ('4/7', 'test kl_r50, accuracy.json')
    assert len(re.findall(r'^\$ ', again, re.M)) == 1


def check_submission(path: Path, challenge) -> None:
    """A submission names each test image once, as the server does, with a class."""
    with open(path, newline='') as file:
        heading, *rows = csv.reader(file)
    assert heading == ['Image IDs', 'Predictions']
    assert sorted(Path(row[0]).name for row in rows) == sorted(challenge.test_labels)
    assert all(0 <= int(row[1]) < len(challenge.classes) for row in rows)


@pytest.mark.slow
def test_everything_from_the_lists_to_the_final_submission(tmp_path):
    challenge = make_challenge(tmp_path / 'challenge')
    data = ('--imagenet', challenge.imagenet, '--lists', challenge.lists)
    done = reproduce('all', '--scale', 'rehearsal', '--gpus', 1, *data, cwd=tmp_path)
    folder = tmp_path / 'work_dirs/rehearsal'
    for target in ('table1', 'table2', 'table3', 'table4'):
        assert (folder / f'{target}.md').read_text() in done.stdout or target in done.stdout
    submissions = list(folder.glob('*/submission.csv'))
    assert len(submissions) >= 8 + 3
    for path in submissions:
        check_submission(path, challenge)


@pytest.mark.parametrize(
    ('words', 'message'),
    [
        (('tabel3',), 'there is nothing to reproduce of the name tabel3.*such as table3'),
        (('table3',), 'data/vipriors has no folders train, val, test.*--imagenet and --lists'),
    ],
)
def test_mistakes(words, message, tmp_path):
    failed = run_tool(ROOT / TOOL, *words, cwd=tmp_path, check=False)
    assert failed.returncode == 1
    assert re.search(message, failed.stderr)
    assert not list(tmp_path.iterdir())
