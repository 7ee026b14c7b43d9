"""The commands of the documents, run one by one in a checkout that has what they speak of.

They are run as printed, but for three things: names that stand for something are filled in
(``CONFIG``, ``FOLDER``), trainings take one epoch, and sizes of images are an eighth. What is not
run has its reason in ``NOT_RUN``; a command that is neither run nor named there fails.
"""

from __future__ import annotations

import glob
import re
import shutil
from pathlib import Path

import numpy as np
import pytest
from challenge import make_challenge
from helpers import ROOT, STAGE_ONE, free_port, run, run_tool, write_cropped_config
from mmengine.config import Config
from pages import HISTORY, NAMES, command_lines
from PIL import Image

from ipirm_mm.datasets.idx_format import DEBIAN_FOLDER

# Pattern of a command, or of its page, and what sees to it instead.
NOT_RUN = {
    r'^docs/(reproduce|lab)\.md: (?!.*--dry-run)': 'tests/test_final_run.py, tests/test_lab.py',
    r'^[\w/.]+: (projects/|benchmarks/|make )': 'minutes to hours; tests/projects, test_benchmarks',
    r'tools/reproduce\.py (?!.*--dry-run)': 'hours; tests/test_final_run.py does it small',
    r'--amp': 'needs a GPU',
    r'slurm_': 'needs Slurm; tests/test_tools.py',
    # memory.py --as-set needs no data.
    r'[ =](configs/|ipirm_mm::)(?!quickstart)\S+\.py(?!.* --as-set)': (
        'needs the data of the challenge; tests/test_configs.py takes a step of each config'
    ),
    r'^configs/': 'a line for each config; tests/test_configs.py takes a step of each',
    r'^docs/stage[12]\.md: ': 'experiments of minutes to hours',
    r'converters/glyphs\.py': 'needs fonts; tests/datasets/test_glyphs.py',
    r'--layers backbone\.features': 'needs a VGG; tests/test_figures.py',
    r' \[|\.\.\.': 'a synopsis',
}
# Scripts that are given an encoder for CONFIG and CHECKPOINT; others are given a classifier.
OF_ENCODERS = re.compile('train|check_setup|memory|benchmark_ssl|show_partition|figure')
# What stands there on a page for what the page has trained.
TRAINED = {
    'docs/ecosystem.md': dict(
        CONFIG='configs/quickstart/supervised.py', CHECKPOINT='work_dirs/supervised/epoch_1.pth'
    )
}
# Options that name what a command leaves.
LEAVES = ('--out', '--show-path', '--save-path', '--submission', '--out-dir', '--save-weights')
SMALL = ['--model', 'resnet18', '--image-size', '32', '--batch-size', '8', '--workers', '0']


def script_of(words: list[str]) -> str | None:
    """The script of a command, relative to the repository; None if it is none of ours."""
    words = words[1:] if words[0] in ('python', 'bash') else words
    if words[:2] == ['-m', 'ipirm_mm'] and len(words) > 2:
        return f'tools/{words[2]}.py'
    return words[0] if re.match(r'(tools|projects|benchmarks)/|make$', words[0]) else None


def reason(page: str, words: list[str]) -> str | None:
    line = f'{page}: {" ".join(words[1:] if words[0] in ("python", "bash") else words)}'
    return next((why for pattern, why in NOT_RUN.items() if re.search(pattern, line)), None)


def commands_to_run() -> dict[str, list[list[str]]]:
    """Commands by page; one that several pages have is run for the first."""
    seen, found = set(), {}
    for page in NAMES:
        for words in command_lines(page) if page not in HISTORY else ():
            if script_of(words) and not reason(page, words) and tuple(words) not in seen:
                seen.add(tuple(words))
                found.setdefault(page, []).append(words)
    return found


COMMANDS = commands_to_run()


@pytest.fixture(scope='module')
def checkout(tmp_path_factory, stage_one):
    """A checkout with images, the data of a made-up challenge, checkpoints and predictions."""
    folder = tmp_path_factory.mktemp('checkout')
    for name in ('configs', 'tools'):
        (folder / name).symlink_to(ROOT / name)
    colors = np.random.default_rng(0).integers(0, 256, (40, 1, 1, 3), dtype=np.uint8)
    for number, color in enumerate(colors):
        path = folder / f'my_images/{"ab"[number % 2]}/{number}.png'
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(color.repeat(40, 0).repeat(40, 1)).save(path)
    shutil.copytree(folder / 'my_images', folder / 'labeled_images')
    shutil.copy(path, folder / 'dress.png')
    challenge = make_challenge(folder / 'made', classes=3, per_class=2)
    (folder / 'data').mkdir()
    (folder / 'data/imagenet').symlink_to(challenge.imagenet)
    (folder / 'LISTS').symlink_to(challenge.lists)

    encoder = Config.fromfile(ROOT / STAGE_ONE)
    encoder.train_dataloader.update(batch_size=64)
    encoder.train_dataloader.dataset.indices = 320
    encoder.dump(folder / 'encoder.py')
    shutil.copy(stage_one / 'epoch_5.pth', folder / 'encoder.pth')

    config = 'configs/quickstart/supervised.py'
    for name in 'ab':
        write_cropped_config(folder / f'{name.upper()}.py', config)
        short = ('train_cfg.max_epochs=1', f'randomness.seed={ord(name)}')
        given = (config, '--work-dir', f'runs/{name}', '--cfg-options', *short)
        run_tool(ROOT / 'tools/train.py', *given, cwd=folder)
        shutil.copy(folder / f'runs/{name}/epoch_1.pth', folder / f'{name}.pth')
        for split, flags in dict(test=(), val=('--val',)).items():
            given = (f'{name.upper()}.py', f'{name}.pth', *flags, '--out', f'{name}_{split}.pkl')
            run_tool(ROOT / 'tools/test.py', *given, cwd=folder)
        shutil.copy(folder / f'{name}_test.pkl', folder / f'{name}.pkl')
    for student in ('student_kl', 'student_ofd'):
        path = folder / f'work_dirs/demo/seed_0/{student}/epoch_1.pth'
        path.parent.mkdir(parents=True)
        shutil.copy(folder / 'a.pth', path)
    return folder


def filled(page: str, words: list[str], script: str, folder: Path) -> list[str]:
    """A command's arguments for the checkout, and what makes it short."""
    first = next(number for number, word in enumerate(words) if word.startswith(('tools/', '-m')))
    words = words[first + (3 if words[first] == '-m' else 1) :]
    encoder = OF_ENCODERS.search(script)
    names = dict(
        CONFIG='encoder.py' if encoder else 'A.py',
        CHECKPOINT='encoder.pth' if encoder else 'a.pth',
        FILE='encoder.pth',
        FOLDER='my_images',
        LABELED_FOLDER='labeled_images',
        IMAGE_OR_FOLDER='my_images',
        DIR='out/dir',
        OUT='out/out',
        RUN=next(map(str, folder.glob('runs/a/2*'))),
    )
    names.update(TRAINED.get(page, {}))
    found = []
    for word in words:
        word = re.sub(r'\b[A-Z_]+\b(?!\.py)', lambda name: names.get(name[0], name[0]), word)
        word = re.sub(r'epoch_\d+', 'epoch_1', word)
        word = re.sub(r'^(224|256|288|320)$', lambda size: str(int(size[0]) // 8), word)
        found += sorted(glob.glob(word, root_dir=folder)) if '*' in word else [word]
    name = Path(script).stem
    if script.endswith('.sh'):
        found[1 + (name == 'dist_test')] = '2'  # processes, of 8
    if '--gpus' in found:
        found[found.index('--gpus') + 1] = '2'
    if '--draw' in found:
        found += ['--per-class', '1']
    if name in ('pretrain', 'distill'):
        given = found.index('--epochs') if '--epochs' in found else len(found)
        found[given : given + 2] = ['--epochs', '1']
        found += SMALL
    if name in ('train', 'dist_train'):
        short = ('train_cfg.max_epochs=1', 'default_hooks.checkpoint.interval=1')
        found += short if '--cfg-options' in found else ('--cfg-options', *short)
    return found


@pytest.mark.slow
@pytest.mark.xdist_group('stage_one')
@pytest.mark.parametrize('page', COMMANDS)
def test_commands_run_as_printed(page, checkout):
    for words in COMMANDS[page]:
        script = script_of(words)
        if 'fashion_mnist50' in script and not Path(DEBIAN_FOLDER).is_dir():
            continue
        given = filled(page, words, script, checkout)
        # Two ways to the same folder, which neither overwrites.
        shutil.rmtree(checkout / 'data/vipriors', ignore_errors=True)
        if script.endswith('.sh'):
            run('bash', ROOT / script, *given, cwd=checkout, PORT=free_port())
        else:
            run_tool(ROOT / script, *given, cwd=checkout)
        for option, value in zip(given, given[1:]):
            if option in LEAVES:
                assert (checkout / value).exists(), ' '.join(words)


def test_reasons_are_needed():
    """Each pattern of what is not run is that of a command."""
    lines = [(page, words) for page in NAMES for words in command_lines(page) if script_of(words)]
    assert {reason(*line) for line in lines} >= set(NOT_RUN.values())
