"""README and docs against the repository: links, paths, commands, options and examples."""

import argparse
import contextlib
import io
import re
import runpy
import sys
from pathlib import Path

import pytest
from pages import FENCE, HISTORY, NAMES, ROOT, blocks, command_lines, read

# What these targets of the Makefile run.
MADE = {'demo': 'projects/laptop/demo.py', 'bench': 'benchmarks/run.py'}
PATH = re.compile(
    r'(?<![\w./:~-])(?:configs|tools|projects|ipirm_mm|benchmarks|tests|docs|requirements)/'
    r'[\w./*{},-]*'
)
# What stands for a name: configs/backbones/ipirm_simclr_BACKBONE.py.
PLACEHOLDER = re.compile(r'[A-Z]{3,}(?:_[A-Z]+)*')


def expand(pattern: str) -> list[str]:
    """All paths of one with braces."""
    match = re.search(r'\{([^{}]*)\}', pattern)
    if match is None:
        return [pattern]
    choices = match.group(1).split(',')
    return [
        path
        for choice in choices
        for path in expand(pattern[: match.start()] + choice + pattern[match.end() :])
    ]


def anchors(page: Path) -> set[str]:
    """What links may point at in a page, as GitHub makes them of headings."""
    text = FENCE.sub('', page.read_text(encoding='utf-8'))
    headings = re.findall(r'^#+ (.*)$', text, re.M)
    return {re.sub(r'[^\w\- ]', '', heading.lower()).replace(' ', '-') for heading in headings}


def test_there_are_pages():
    assert {'README.md', 'docs/how_it_works.md', 'docs/references.md'} <= set(NAMES)


@pytest.mark.parametrize('name', NAMES)
def test_links_and_images_exist(name):
    text = FENCE.sub('', read(name))
    links = re.findall(r'\]\(([^)\s]+)\)', text)
    links += re.findall(r'<(?:img|source)[^>]* src(?:set)?="([^"]+)"', text)
    broken = []
    for link in links:
        if re.match(r'\w+:', link):
            continue
        path, _, anchor = link.partition('#')
        target = (ROOT / name).parent / path if path else ROOT / name
        if not target.exists() or (anchor and anchor not in anchors(target)):
            broken.append(link)
    assert not broken


@pytest.mark.parametrize('name', [name for name in NAMES if name not in HISTORY])
def test_paths_exist(name):
    missing = []
    for path in PATH.findall(read(name)):
        for one in expand(path):
            pattern = PLACEHOLDER.sub('*', one.rstrip('.,')).rstrip('/')
            if not any(ROOT.glob(pattern)):
                missing.append(one)
    assert not missing


@pytest.mark.parametrize('name', [name for name in NAMES if name not in HISTORY])
def test_make_targets_exist(name):
    targets = set(re.findall(r'^([\w-]+):', read('Makefile'), re.M))
    text = read(name)
    used = set(re.findall(r'`make ([a-z][\w-]*)', text))
    for block in blocks(text):
        used |= set(re.findall(r'^make ([a-z][\w-]*)', block, re.M))
    assert used <= targets


def commands(name: str) -> list[tuple[Path, list[str]]]:
    """Script and words of each command of a page that runs one of our scripts."""
    found = []
    for words in command_lines(name):
        if words[:1] == ['make'] and words[1] in MADE:
            arguments = [word for word in words if word.startswith('ARGS=')]
            words = [MADE[words[1]], *' '.join(arguments)[5:].split()]
        if words[:1] in (['python'], ['bash']) and len(words) > 1:
            words.pop(0)
        if words[:2] == ['-m', 'ipirm_mm']:
            words = [f'tools/{words[2]}.py', *words[3:]]
        if not words or not re.match(r'(tools|projects|benchmarks|docs)/', words[0]):
            continue
        script, words = words[0], words[1:]
        launcher = re.fullmatch(r'tools/(?:dist|slurm)_(train|test)\.sh', script)
        if launcher:
            assert (ROOT / script).is_file(), f'{name}: {script}'
            before = 2 if 'slurm' in script else 0
            words = words[before:]
            # The number of processes, or the work folder of slurm_train.sh.
            place = 2 if script == 'tools/dist_test.sh' else 1
            if script != 'tools/slurm_test.sh':
                words = words[:place] + words[place + 1 :]
            script = f'tools/{launcher.group(1)}.py'
        found.append((ROOT / script, words))
    return found


class Parsed(Exception):
    """Carries a parser out of the script that made it."""


_PARSERS: dict[Path, argparse.ArgumentParser] = {}


def parser_of(script: Path) -> argparse.ArgumentParser:
    """The parser that a script makes."""
    if script not in _PARSERS:

        def give_away(self, *args, **kwargs):
            raise Parsed(self)

        with pytest.MonkeyPatch.context() as patch:
            patch.syspath_prepend(str(script.parent))
            patch.setattr(sys, 'argv', [str(script)])
            for name in ('parse_args', 'parse_intermixed_args'):
                patch.setattr(argparse.ArgumentParser, name, give_away)
            functions = runpy.run_path(str(script), run_name='not_main')
            with pytest.raises(Parsed) as parsed:
                functions.get('parse_args', functions['main'])()
        _PARSERS[script] = parsed.value.args[0]
    return _PARSERS[script]


@pytest.mark.parametrize('name', [name for name in NAMES if name not in HISTORY])
def test_commands_are_understood(name):
    wrong = []
    for script, words in commands(name):
        if not script.is_file():
            wrong.append(f'{script.relative_to(ROOT)} does not exist')
            continue
        parser = parser_of(script)
        shown = f'{script.relative_to(ROOT)} {" ".join(words)}'
        if any(word.startswith('[') or '...' in word for word in words):  # a synopsis
            options = set(re.findall(r'(?<![\w-])--?[a-z][\w-]*', shown))
            unknown = options - set(parser._option_string_actions)
            wrong += [f'{shown}: no option {option}' for option in sorted(unknown)]
            continue
        message = io.StringIO()
        try:
            with contextlib.redirect_stderr(message):
                parser.parse_args(words)
        except SystemExit:
            wrong.append(f'{shown}: {message.getvalue().splitlines()[-1]}')
    assert not wrong


@pytest.mark.parametrize('name', [name for name in NAMES if name not in HISTORY])
def test_options_in_the_text_exist(name):
    """Each ``--option`` in the text is one of some tool's, or of another program's."""
    # argparse makes the opposite of --labels.
    others = {'--help', '--no-deps', '--find-links', '--no-labels'}
    scripts = [ROOT / 'ipirm_mm/cli.py']
    for folder in ('tools', 'projects', 'benchmarks'):
        scripts += ROOT.glob(f'{folder}/**/*.py')
    options = {
        option
        for script in scripts
        for option in re.findall(r"'(--[\w-]+)'", script.read_text(encoding='utf-8'))
    }
    used = set(re.findall(r'`[^`\n]*?(--[a-z][\w-]*)', read(name)))
    assert used <= options | others


def python_blocks(name: str) -> list[str]:
    return [body for language, body in FENCE.findall(read(name)) if language == 'python']


@pytest.mark.parametrize('name', NAMES)
def test_python_blocks_compile(name):
    for number, block in enumerate(python_blocks(name)):
        if not re.match(r'\w+=', block):  # an excerpt of a dict
            compile(block, f'{name}, block {number}', 'exec')


def test_example_of_readme_runs_as_printed(capsys):
    block = next(block for block in python_blocks('README.md') if 'import torch' in block)
    variables: dict = {}
    exec(compile(block, 'README.md', 'exec'), variables)
    assert sum(variables['found'].sizes) == 500
    about = variables['mutual_information'](variables['found'].assignment, variables['semantic'])
    assert float(about) > 0.9
    assert variables['risks'].penalty.shape == (1, 2)
    assert capsys.readouterr().out.strip() in ' '.join(read('README.md').split())


def test_functional_can_be_copied_without_mmpretrain():
    """README says so: it imports torch, the standard library and itself."""
    for path in (ROOT / 'ipirm_mm/functional').glob('*.py'):
        text = path.read_text(encoding='utf-8')
        for module in re.findall(r'^\s*(?:from|import) ([\w.]+)', text, re.M):
            top = module.partition('.')[0]
            is_own = module.startswith('.') and not module.startswith('..')
            assert is_own or top == 'torch' or top in sys.stdlib_module_names, (path.name, module)


@pytest.mark.parametrize('page', ['README.md', 'docs/stage1.md'])
def test_three_lines_turn_a_simclr_config_into_ours(page, tmp_path):
    import mmpretrain
    from mmengine.config import Config
    from mmengine.registry import init_default_scope
    from mmpretrain.registry import HOOKS, MODELS

    block = next(block for block in python_blocks(page) if "_base_ = ['simclr" in block)
    stock = Path(mmpretrain.__file__).parent / '.mim/configs/simclr'
    path = tmp_path / 'config.py'
    path.write_text(block.replace("['simclr", f"['{stock}/simclr"))
    config = Config.fromfile(path)
    init_default_scope('mmpretrain')
    model = MODELS.build(config.model)
    assert type(model).__name__ == 'IPIRMSimCLR'
    assert type(model.head).__name__ == 'IPIRMContrastiveHead'
    assert HOOKS.build(config.custom_hooks[0]).interval == 50


def test_a_config_of_mocov3_becomes_ours(tmp_path):
    import mmpretrain
    from mmengine.config import Config
    from mmengine.registry import init_default_scope
    from mmpretrain.registry import MODELS

    block = next(text for text in python_blocks('docs/stage1.md') if "_base_ = ['mocov3" in text)
    stock = Path(mmpretrain.__file__).parent / '.mim/configs/mocov3'
    path = tmp_path / 'config.py'
    path.write_text(block.replace("['mocov3", f"['{stock}/mocov3"))
    theirs = stock / 'mocov3_resnet50_8xb512-amp-coslr-100e_in1k.py'
    init_default_scope('mmpretrain')
    models = [Config.fromfile(config).model for config in (path, theirs)]
    for model in models:  # narrow ones are built faster
        model.backbone.update(depth=18, base_channels=8, stem_channels=8)
        model.neck.update(in_channels=64, hid_channels=8)
    model, other = map(MODELS.build, models)
    assert type(model).__name__ == 'IPIRMMoCoV3'
    assert model.head.temperature == other.head.temperature
    names = {name for name in model.state_dict() if not name.startswith('partitions.')}
    assert names == set(other.state_dict())


def test_every_config_is_in_the_table():
    text = read('docs/configs.md')
    listed = set()
    for path in re.findall(r'`([\w./*{}-]+\.py)`', text):
        pattern = PLACEHOLDER.sub('*', path)
        folder = '' if '/' in pattern else 'configs/quickstart/'
        listed |= set(ROOT.glob(folder + pattern))
    configs = {path for path in ROOT.glob('configs/**/*.py') if '_base_' not in path.parts}
    assert configs - listed == set()


def test_every_page_is_linked():
    """From README or from a page that README links."""
    linked = {Path('README.md')}
    for _ in range(2):
        for page in list(linked):
            if page.suffix == '.md':
                links = re.findall(r'\]\(([^)#\s:]+)', read(str(page)))
                linked |= {
                    (ROOT / page.parent / link).resolve().relative_to(ROOT) for link in links
                }
    assert set(ROOT.glob('docs/*.md')) <= {ROOT / page for page in linked}


def test_figure_is_that_of_the_script(tmp_path):
    pytest.importorskip('matplotlib')
    functions = runpy.run_path(str(ROOT / 'docs/draw_method.py'), run_name='not_main')
    labels = {text.get_text() for text in functions['draw']().axes[0].texts}
    for equation in range(1, 6):
        assert any(f'Eq. {equation}' in label for label in labels)
    assert (ROOT / 'docs/method.svg').read_text(encoding='utf-8').startswith('<?xml')


def test_linters_of_pre_commit_are_those_of_make():
    pinned = dict(
        line.split('==') for line in read('requirements/pinned.txt').split() if '==' in line
    )
    versions = re.findall(r'\[ruff==([\d.]+)\]', read('.pre-commit-config.yaml'))
    assert set(versions) == {pinned['ruff']}


def test_version_of_citation():
    from ipirm_mm.version import __version__

    assert re.search(r'^version: (.*)$', read('CITATION.cff'), re.M).group(1) == __version__


def test_report_is_not_the_paper():
    """The NeurIPS paper and the challenge entry are two works."""
    for name in ('README.md', 'docs/references.md'):
        text = ' '.join(read(name).split())
        assert 'Self-Supervised Learning Disentangled Group Representation as Feature' in text
        assert 'VIPriors challenge' in text or 'VIPriors](https://vipriors' in text
    assert 'No figure of the report has been reproduced yet' in read('README.md')
