"""tools/analysis/memory.py, and the settings that the metafiles name for smaller cards."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import pytest
import yaml
from helpers import ROOT, run_tool
from mmengine.config import Config

from ipirm_mm.engine.memory import StepCounter, image_size

TOOL = 'tools/analysis/memory.py'
CARDS = (16, 32)
# How much of a card is left to what the tool does not count.
FREE = 0.1
INDEX = yaml.safe_load((ROOT / 'model-index.yml').read_text())['Import']
MODELS = {
    model['Name']: model
    for file in INDEX
    # These are for processors.
    if not re.search('quickstart|glyphs', file)
    for model in yaml.safe_load((ROOT / file).read_text())['Models']
}
# One of each kind of setting, of networks that are built fast.
QUICK = ('ofd_r50', 'ensemble_2_mean')


def table(*arguments):
    """Rows of the printed table: one dict per row."""
    output = run_tool(TOOL, *arguments, '--markdown').stdout
    lines = [line for line in output.splitlines() if line.startswith('|')]
    cells = [[cell.strip() for cell in line.strip('|').split('|')] for line in lines]
    return [dict(zip(cells[0], row)) for row in cells[2:]]


def test_four_rows_per_config():
    configs = [f'configs/quickstart/{name}.py' for name in ('ipirm_simclr_report', 'student_ofd')]
    # More images than in the config, so that there is something to see in GB.
    rows = table(
        *configs, '--cfg-options', 'train_dataloader.batch_size=2048', '--cards', '1', '2'
    )
    settings = ['fp32', 'AMP', 'fp32, checkpointing', 'AMP, checkpointing']
    assert [row['settings'] for row in rows] == 2 * settings
    for number, path in enumerate(configs):
        four = rows[4 * number : 4 * number + 4]
        config = Config.fromfile(path)
        found = StepCounter(config).count(2048, image_size(config))
        assert four[0]['config'] == Path(path).stem
        assert four[0]['kept'] == f'{found.kept / 1e9:.2f}'
        assert four[0]['step'] == f'{found.total / 1e9:.2f}'
        kept = [float(row['kept']) for row in four]
        assert kept[0] > kept[1] > kept[3] and kept[0] > kept[2] > kept[3]
        for row in four:
            for card in (1, 2):
                word, most = row[f'{card} GB'].split()
                assert (word == 'yes') == (float(row['step']) <= card)
                assert (word == 'yes') == (int(most.strip('()').replace(',', '')) >= 2048)


def test_settings_of_the_command():
    config = 'configs/quickstart/student_kl.py'
    four = table(config)
    names = 'activation_checkpointing=backbone.layers.0,backbone.layers.1,backbone.layers.2'
    (both,) = table(config, '--as-set', '--amp', '--cfg-options', names)
    assert both == four[3]
    (plain,) = table(config, '--as-set')
    assert plain == four[0]
    (amp,) = table(config, '--as-set', '--cfg-options', 'optim_wrapper.type=AmpOptimWrapper')
    assert amp == four[1]


def test_a_pipeline_that_names_no_size():
    config = 'configs/quickstart/linear.py'
    finished = run_tool(TOOL, config, check=False)
    assert finished.returncode == 1
    assert 'does not say how large its images are: give --size' in finished.stderr
    assert table(config, '--size', '28', '--as-set')[0]['settings'] == 'fp32'


def check_card(name, card):
    """See that a model's settings fit a card, and keep images per process and per step."""
    flags = shlex.split(MODELS[name]['Metadata'][f'Fits {card} GB'])
    if flags == ['as', 'it', 'is']:
        flags = []
    (row,) = table(MODELS[name]['Config'], '--as-set', '--cards', str(card), *flags)
    assert row[f'{card} GB'].startswith('yes')
    assert float(row['step']) <= (1 - FREE) * card


@pytest.mark.parametrize('name', QUICK)
def test_metafiles_name_settings_that_fit(name):
    check_card(name, 16)


@pytest.mark.slow
@pytest.mark.parametrize('card', CARDS)
@pytest.mark.parametrize('name', MODELS)
def test_all_metafiles_name_settings_that_fit(name, card):
    check_card(name, card)


@pytest.mark.parametrize('name', MODELS)
def test_metafiles_keep_the_learning_rate_rule(name):
    """Images per process, processes and accumulated batches give the images of the rule."""
    model = MODELS[name]
    for card in CARDS:
        text = model['Metadata'][f'Fits {card} GB']
        options = dict(word.split('=', 1) for word in shlex.split(text) if '=' in word)
        assert options.keys() <= {'activation_checkpointing'}
        assert text == 'as it is' or text.startswith('--amp')
    config = Config.fromfile(ROOT / model['Config'])
    if config.get('auto_scale_lr') is not None:
        command = model['Metadata']['Command'].split()
        processes = int(command[3]) if 'dist_train' in command[1] else 1
        images = config.train_dataloader.batch_size * processes
        assert images == config.auto_scale_lr.base_batch_size


@pytest.mark.slow
def test_docs_have_what_the_tool_prints():
    """One config of the table in docs/memory.md; another PyTorch may differ in the last digits."""
    lines = (ROOT / 'docs/memory.md').read_text().splitlines()
    documented = [
        [cell.strip() for cell in line.strip('|').split('|')]
        for line in lines
        if line.startswith('| ipirm_simclr_r50 |')
    ]
    printed = [list(row.values()) for row in table('configs/ipirm_simclr_r50.py')]
    assert len(documented) == len(printed) == 4
    for written, found in zip(documented, printed):
        assert written[:3] == found[:3]
        assert [float(cell) for cell in written[3:6]] == pytest.approx(
            [float(cell) for cell in found[3:6]], rel=0.02
        )


def test_options_of_the_docs_train(tmp_path):
    """Those that need no GPU; test_wrappers.py and test_networks.py check their numbers."""
    options = (
        'train_dataloader.dataset.indices=64',
        'train_dataloader.batch_size=16',
        'optim_wrapper.accumulative_counts=2',
        'activation_checkpointing=backbone.layers',
        'data_preprocessor.channels_last=False',
        'train_cfg.max_epochs=1',
        'default_hooks.checkpoint.interval=10',
        'custom_hooks.1.interval=10',
        'train_cfg.val_interval=10',
    )
    config = 'configs/quickstart/ipirm_simclr_sum.py'
    run_tool('tools/train.py', config, '--work-dir', tmp_path, '--cfg-options', *options)
    assert list(tmp_path.glob('epoch_1.pth'))
