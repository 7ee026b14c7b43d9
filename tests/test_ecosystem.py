"""MMPretrain's own tools on a run of ours, as docs/ecosystem.md has them."""

from __future__ import annotations

import runpy
import sys
import types

import cv2
import numpy as np
import pytest
from helpers import MIM, ROOT, fails_with, run_python, run_tool
from mmengine.config import Config
from mmpretrain.registry import DATASETS, MODELS

from ipirm_mm.models.backbones import SmallConvNet

CONFIG = ROOT / 'configs/quickstart/supervised.py'
TOOL = ROOT / 'tools/mmpretrain_tool.py'


@pytest.fixture(scope='module')
def trained(tmp_path_factory):
    """The folder of a run of one epoch."""
    folder = tmp_path_factory.mktemp('ecosystem')
    run_tool(
        'tools/train.py',
        CONFIG,
        '--work-dir',
        folder,
        '--cfg-options',
        'train_cfg.max_epochs=1',
        'train_cfg.val_interval=1',
        'default_hooks.logger.interval=1',
    )
    return folder


def picture(path, least=20):
    """Read a picture, and see that it shows something."""
    image = cv2.imread(str(path))
    assert image is not None, path
    assert min(image.shape[:2]) >= least and image.std() > 5, path
    return image


def test_small_networks_name_their_layer():
    network = SmallConvNet(channels=(8, 16))
    assert network.out_indices == (1,)


@pytest.mark.parametrize('config', ['supervised', 'student_kl', 'ipirm_simclr_sum'])
@pytest.mark.slow
def test_get_flops(config):
    found = run_python(
        MIM / 'tools/analysis_tools/get_flops.py', f'configs/quickstart/{config}.py', '--shape', 28
    )
    assert 'Flops: 2.27' in found.stdout and 'backbone.layers.2.conv' in found.stdout


@pytest.mark.slow
def test_analyze_logs(trained, tmp_path):
    pytest.importorskip('matplotlib')
    (log,) = trained.glob('*/vis_data/scalars.json')
    script = MIM / 'tools/analysis_tools/analyze_logs.py'
    out = tmp_path / 'curve.png'
    run_python(script, 'plot_curve', log, '--keys', 'loss', 'accuracy/top1', '--out', out)
    picture(out)
    assert 'average iter time' in run_python(script, 'cal_train_time', log).stdout


@pytest.mark.slow
def test_confusion_matrix(trained, tmp_path):
    pytest.importorskip('matplotlib')
    out, pkl = tmp_path / 'matrix.png', tmp_path / 'predictions.pkl'
    checkpoint = trained / 'epoch_1.pth'
    run_tool('tools/test.py', CONFIG, checkpoint, '--work-dir', tmp_path, '--out', pkl)
    script = MIM / 'tools/analysis_tools/confusion_matrix.py'
    for given in (checkpoint, pkl):
        run_python(script, CONFIG, given, '--show-path', out, '--include-values')
        picture(out)
        out.unlink()


@pytest.mark.slow
def test_vis_tsne(trained, tmp_path):
    pytest.importorskip('sklearn')
    checkpoint = trained / 'epoch_1.pth'
    given = ('--checkpoint', checkpoint, '--work-dir', tmp_path, '--n-iter', 250)
    run_python(TOOL, 'vis_tsne', CONFIG, *given)
    (out,) = tmp_path.glob('*/feat_2.png')
    picture(out)
    (features,) = tmp_path.glob('*/feat_2.npy')
    assert np.load(features).shape == (500, 128)


@pytest.mark.slow
def test_vis_cam(trained, tmp_path):
    pytest.importorskip('pytorch_grad_cam')
    image = tmp_path / 'dress.png'
    dataset = DATASETS.build(dict(type='FashionMNIST50', split='test', pipeline=[]))
    cv2.imwrite(str(image), dataset[0]['img'])
    out = tmp_path / 'cam.png'
    given = (image, CONFIG, trained / 'epoch_1.pth', '--save-path', out)
    found = run_python(TOOL, 'vis_cam', *given)
    assert 'last norm layer "backbone.layers.2.bn"' in found.stdout
    assert picture(out).shape == (28, 28, 3)
    run_python(TOOL, 'vis_cam', *given, '--method', 'gradcam++', '--target-category', 3)


@pytest.mark.slow
def test_browse_dataset(tmp_path):
    pytest.importorskip('matplotlib')
    given = ('--not-show', '-n', 2, '-o', tmp_path)
    run_python(TOOL, 'browse_dataset', CONFIG, *given)
    assert {path.name for path in tmp_path.iterdir()} == {'0.png', '1.png'}
    picture(tmp_path / '0.png')


@pytest.mark.slow
@pytest.mark.parametrize('config', ['supervised', 'ipirm_simclr_sum'])
def test_vis_scheduler(tmp_path, config):
    pytest.importorskip('matplotlib')
    out = tmp_path / 'rate.png'
    path = ROOT / f'configs/quickstart/{config}.py'
    given = ('--not-show', '-s', out, '--cfg-options', f'work_dir={tmp_path}')
    run_python(TOOL, 'vis_scheduler', path, *given)
    picture(out)


def test_tools_are_listed_and_names_checked():
    found = run_tool(TOOL).stdout.split()
    assert {'analyze_logs', 'confusion_matrix', 'vis_tsne', 'vis_cam'} <= set(found)
    finished = run_tool(TOOL, 'vis_tsn', check=False)
    fails_with(finished, 'has no tool vis_tsn: did you mean vis_tsne?')


def test_bridges_take_old_arguments(monkeypatch):
    """Of libraries that have removed them, without those libraries."""
    functions = runpy.run_path(str(TOOL))
    made = []

    class TSNE:
        def __init__(self, n_components=2, max_iter=None):
            made.append((n_components, max_iter))

    monkeypatch.setitem(sys.modules, 'sklearn', types.ModuleType('sklearn'))
    manifold = types.ModuleType('sklearn.manifold')
    manifold.TSNE = TSNE
    monkeypatch.setitem(sys.modules, 'sklearn.manifold', manifold)
    functions['bridge_vis_tsne']()
    manifold.TSNE(n_components=3, n_iter=250)
    assert made == [(3, 250)]
    taken = []
    functions['_without_use_cuda'](lambda self, model: taken.append(model))(0, 5, use_cuda=True)
    assert taken == [5]


def test_schedules_are_drawn_without_hooks(monkeypatch):
    """The imitated training of vis_scheduler has no data that hooks could read."""
    monkeypatch.setattr(Config, 'fromfile', Config.fromfile)
    runpy.run_path(str(TOOL))['bridge_vis_scheduler']()
    config = Config.fromfile(ROOT / 'configs/quickstart/ipirm_simclr_sum.py')
    assert config.custom_hooks == [] and config.param_scheduler == []
    assert MODELS.get(config.model.type) is not None
