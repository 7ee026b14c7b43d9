"""No file that is loaded runs code: planted pickles of every kind, through every loader."""

from __future__ import annotations

import functools
import http.server
import os
import pickle
import threading
from collections import OrderedDict

import numpy as np
import pytest
import torch
from helpers import MIM, fails_with, run_tool
from mmengine.config import Config
from mmengine.logging import HistoryBuffer
from mmengine.runner import CheckpointLoader
from PIL import Image
from test_tool_errors import CONFIG

from ipirm_mm.errors import UserError
from ipirm_mm.utils.safe_checkpoints import load_restricted

ADVICE = ('weights_only', 'safe_globals')  # of PyTorch, which would let a file run code


class Evil:
    """Makes the folder ``ran`` when it is unpickled."""

    def __init__(self, root):
        self.root = root

    def __reduce__(self):
        return os.mkdir, (str(self.root / 'ran'),)


class Evaluates(Evil):
    def __reduce__(self):
        return eval, (f'__import__("os").mkdir({str(self.root / "ran")!r})',)


class Reaches(Evil):
    """Gets at a function through the one that is allowed."""

    def __reduce__(self):
        return getattr, (HistoryBuffer, '__init__')


class Builds(Evil):
    """State of an allowed type that is set by a function."""

    def __reduce__(self):
        return OrderedDict, (), None, None, iter([('key', Evil(self.root))])


def plant(root):
    """Contents of checkpoints with something planted, by where it is."""
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.ones(2))], lr=0.1, momentum=0.9)

    def good():
        buffer = HistoryBuffer()
        buffer.update(np.float64(1.5), 2)
        return dict(
            meta=dict(epoch=1, iter=4, cfg='a = 1\n'),
            state_dict=OrderedDict(weight=torch.ones(2)),
            message_hub=dict(log_scalars={'train/loss': buffer}, runtime_info={}),
            optimizer=optimizer.state_dict(),
        )

    places = {name: good() for name in ('top', 'meta', 'runtime', 'optimizer', 'state', 'array')}
    evil = Evil(root)
    places['top'] = evil
    places['meta']['meta']['evil'] = evil
    places['runtime']['message_hub']['runtime_info']['evil'] = evil
    places['optimizer']['optimizer']['state'] = {0: dict(momentum_buffer=evil)}
    places['state']['state_dict']['weight'] = evil
    places['array']['array'] = np.array([1, evil], dtype=object)
    for name, kind in (('eval', Evaluates), ('reach', Reaches), ('build', Builds)):
        places[name] = dict(good(), evil=kind(root))
    for name, attribute in (('history', '_log_history'), ('statistics', '_statistics_methods')):
        places[name] = good()
        buffer = places[name]['message_hub']['log_scalars']['train/loss']
        setattr(buffer, attribute, dict(mean=evil))
    places['metadata'] = good()
    places['metadata']['state_dict']._metadata = evil
    places['module'] = dict(good(), model=torch.nn.Linear(2, 2))
    return good(), places


def test_planted_pickles_do_not_run(tmp_path, monkeypatch):
    monkeypatch.setenv('TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD', '1')  # as forums advise
    good, places = plant(tmp_path)
    path = tmp_path / 'file.pth'
    for legacy in (False, True):
        torch.save(good, path, _use_new_zipfile_serialization=not legacy)
        for content in (
            CheckpointLoader.load_checkpoint(str(path), 'cpu'),
            load_restricted(str(path), 'cpu'),
        ):
            assert content['message_hub']['log_scalars']['train/loss'].mean() == 0.75
            assert content['state_dict']['weight'].tolist() == [1, 1]
        for name, content in places.items():
            torch.save(content, path, _use_new_zipfile_serialization=not legacy)
            with pytest.raises(UserError, match='could run code|cannot be read') as error:
                CheckpointLoader.load_checkpoint(str(path), 'cpu')
            assert not any(word in str(error.value) for word in ADVICE), name
            assert error.value.__cause__ is None and error.value.__suppress_context__
            with pytest.raises(pickle.UnpicklingError):  # of older versions of PyTorch
                load_restricted(str(path), 'cpu')
    path.write_bytes(pickle.dumps(places['top']))
    with pytest.raises(UserError):
        CheckpointLoader.load_checkpoint(str(path), 'cpu')
    assert os.environ['TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD'] == '1'
    assert 'TORCH_FORCE_WEIGHTS_ONLY_LOAD' not in os.environ
    assert not (tmp_path / 'ran').exists()


def test_addresses_are_loaded_as_safely(tmp_path, monkeypatch):
    """``torch.hub`` loads addresses with ``weights_only=False`` unless it is told otherwise."""
    monkeypatch.setenv('TORCH_HOME', str(tmp_path / 'home'))
    good, places = plant(tmp_path)
    torch.save(dict(state_dict=good['state_dict']), tmp_path / 'good.pth')
    torch.save(places['meta'], tmp_path / 'bad.pth')
    handler = functools.partial(http.server.SimpleHTTPRequestHandler, directory=str(tmp_path))
    handler.func.log_message = lambda *args: None
    with http.server.ThreadingHTTPServer(('127.0.0.1', 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        address = f'http://127.0.0.1:{server.server_port}'
        assert 'state_dict' in CheckpointLoader.load_checkpoint(f'{address}/good.pth', 'cpu')
        with pytest.raises(UserError, match='could run code'):
            CheckpointLoader.load_checkpoint(f'{address}/bad.pth', 'cpu')
        server.shutdown()
    assert not (tmp_path / 'ran').exists()


@pytest.fixture(scope='module')
def trained(tmp_path_factory):
    """A small classifier that was trained for an epoch, and its checkpoint."""
    root = tmp_path_factory.mktemp('trained')
    for name in ('cat', 'dog'):
        (root / 'img' / name).mkdir(parents=True)
        for n in range(2):
            Image.new('RGB', (20, 20), (n, 99, 0)).save(root / f'img/{name}/{n}.png')
    (root / 'config.py').write_text(CONFIG.format(root=root))
    run_tool('tools/train.py', root / 'config.py', '--work-dir', root / 'work')
    return root


def planted(trained, tmp_path, place, kind=Evil):
    """A checkpoint of the classifier that has something planted."""
    content = torch.load(trained / 'work/epoch_1.pth', weights_only=True)
    evil = kind(tmp_path)
    if place == 'history':
        content['message_hub']['log_scalars']['train/loss']._statistics_methods = dict(mean=evil)
    elif place == 'optimizer':
        content['optimizer']['state'] = {0: evil}
    elif place == 'config':  # MMEngine runs the text of this name
        content['meta']['config'] = f'import os\nos.mkdir({str(tmp_path / "ran")!r})\n'
    elif place == 'cfg':
        text = f'import os\nos.mkdir({str(tmp_path / "ran")!r})\ntrain_dataloader = dict(a=b())\n'
        content['meta']['cfg'] = content['message_hub']['runtime_info']['cfg'] = text
    path = tmp_path / f'{place}.pth'
    torch.save(content, path)
    return path


def refused(finished, tmp_path):
    fails_with(finished, 'could run code')
    assert not any(word in finished.stderr for word in ADVICE)
    assert not (tmp_path / 'ran').exists()


def resume(trained, tmp_path, path, tool='tools/train.py', check=False):
    return run_tool(
        tool,
        trained / 'config.py',
        '--work-dir',
        tmp_path / 'work',
        *('--resume', path, '--no-persistent-workers'),
        *('--cfg-options', 'train_cfg.max_epochs=2'),
        check=check,
    )


@pytest.mark.parametrize('tool', ['tools/train.py', MIM / 'tools/train.py'])
@pytest.mark.parametrize('place', ['config', 'cfg'])
def test_the_config_in_a_checkpoint_is_not_run(trained, tmp_path, place, tool):
    resume(trained, tmp_path, planted(trained, tmp_path, place), tool, check=True)
    assert (tmp_path / 'work/epoch_2.pth').exists() and not (tmp_path / 'ran').exists()


def test_a_resumed_run_and_a_test_run_nothing(trained, tmp_path):
    path = planted(trained, tmp_path, 'history')
    refused(resume(trained, tmp_path, path), tmp_path)
    where = ('--work-dir', tmp_path / 'work')
    refused(run_tool('tools/test.py', trained / 'config.py', path, *where, check=False), tmp_path)


@pytest.mark.parametrize('tool', ['train', 'test'])
def test_the_stock_tools_run_nothing(trained, tmp_path, tool):
    """Of MMPretrain, with ``ipirm_mm`` among the ``custom_imports`` of the config."""
    path = planted(trained, tmp_path, 'optimizer')
    if tool == 'train':
        finished = resume(trained, tmp_path, path, MIM / 'tools/train.py')
    else:
        given = (trained / 'config.py', path, '--work-dir', tmp_path / 'work')
        finished = run_tool(MIM / 'tools/test.py', *given, check=False)
    assert finished.returncode and 'could run code' in finished.stderr
    assert not any(f'{word}=False' in finished.stderr for word in ADVICE)
    assert not (tmp_path / 'ran').exists()


@pytest.mark.slow
@pytest.mark.parametrize('place', ['history', 'optimizer'])
def test_every_tool_runs_nothing(trained, tmp_path, place):
    path, config = planted(trained, tmp_path, place), trained / 'config.py'
    where = ('--work-dir', tmp_path / 'work')
    name = 'model.backbone.init_cfg'
    for given in (
        ('train', config, *where, '--cfg-options', f'load_from={path}'),
        (
            *('train', config, *where, '--cfg-options'),
            *(f'{name}.type=Pretrained', f'{name}.checkpoint={path}'),
        ),
        ('publish_model', config, path, '--out', tmp_path / 'out'),
        ('benchmark_ssl', config, path),
        ('search_tta', config, path, *where),
        ('image_demo', trained / 'img', config, path),
        ('analysis/show_partition', config, path),
        ('analysis/figure2a', f'{config}:{path}', '--out', tmp_path / 'out.png'),
        ('analysis/figure2b', f'{config}:{path}', '--out', tmp_path / 'out.png'),
        ('ensemble', f'{config}:{path}', f'{config}:{path}', *where),
    ):
        finished = run_tool(f'tools/{given[0]}.py', *given[1:], check=False)
        refused(finished, tmp_path)


@pytest.mark.parametrize('ending', ['pkl', 'yaml'])
def test_lists_of_images_that_could_run_code_are_refused(trained, tmp_path, ending):
    """MMEngine reads such lists with ``pickle.load`` and with the unsafe loader of YAML."""
    (tmp_path / 'list.pkl').write_bytes(pickle.dumps(Evil(tmp_path)))
    (tmp_path / 'list.yaml').write_text(f'!!python/object/apply:os.mkdir [{tmp_path / "ran"}]\n')
    config = Config.fromfile(trained / 'config.py')
    config.train_dataloader.dataset = dict(
        type='RepeatDataset',
        times=1,
        dataset=dict(type='mmengine.BaseDataset', ann_file=str(tmp_path / f'list.{ending}')),
    )
    config.dump(tmp_path / 'config.py')
    finished = run_tool('tools/train.py', tmp_path / 'config.py', check=False)
    fails_with(finished, f'list.{ending}: MMEngine reads such files in a way that could run code')
    assert not (tmp_path / 'ran').exists()
