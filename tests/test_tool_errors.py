"""A mistake of the user ends every tool with one sentence, and nothing is left half written."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from helpers import ROOT, run_tool
from mmengine.config import Config
from mmpretrain.registry import MODELS
from PIL import Image

CONFIG = """
default_scope = 'mmpretrain'
custom_imports = dict(imports=['ipirm_mm'])
data_preprocessor = dict(num_classes=2, mean=[80.0] * 3, std=[60.0] * 3)
model = dict(type='ImageClassifier', backbone=dict(type='SmallConvNet', channels=(8, 16)),
    neck=dict(type='GlobalAveragePooling'),
    head=dict(type='LinearClsHead', num_classes=2, in_channels=16))
pipe = [dict(type='LoadImage'), dict(type='Resize', scale=16), dict(type='PackInputs')]
loader = dict(batch_size=2, num_workers=0, sampler=dict(type='DefaultSampler', shuffle=False),
    dataset=dict(type='CustomDataset', data_root='{root}/img', pipeline=pipe))
train_dataloader = val_dataloader = test_dataloader = knn_bank = loader
val_evaluator = test_evaluator = dict(type='Accuracy')
train_cfg = dict(by_epoch=True, max_epochs=1)
val_cfg = test_cfg = dict()
optim_wrapper = dict(optimizer=dict(type='SGD', lr=0.1))
"""


@pytest.fixture(scope='module')
def files(tmp_path_factory):
    """A small classifier, its data, and files of the wrong kinds."""
    root = tmp_path_factory.mktemp('errors')
    for name in ('cat', 'dog'):
        (root / 'img' / name).mkdir(parents=True)
        for n in range(2):
            Image.new('RGB', (20, 20), (n, 99, 0)).save(root / f'img/{name}/{n}.png')
    text = CONFIG.format(root=root)
    (root / 'good.py').write_text(text)
    (root / 'syntax.py').write_text('model = dict(\n')
    (root / 'nothing.py').write_text('a = 1\n')
    (root / 'text.txt').write_text('hello\n')
    (root / 'typo.py').write_text(text.replace("'SmallConvNet'", "'SmalConvNet'"))
    (root / 'argument.py').write_text(text.replace('channels=(8', 'chanels=(8'))
    (root / 'no_data.py').write_text(text.replace('/img', '/images'))
    (root / 'ssl.py').write_text(text.replace("'ImageClassifier'", "'SimCLR'"))
    (root / 'multi.py').write_text(text.replace('LinearClsHead', 'MultiTaskHead'))
    (root / 'text.pth').write_text('no checkpoint\n')
    (root / 'empty.pth').touch()
    torch.save(dict(state_dict=dict(other=torch.zeros(3))), root / 'other.pth')
    torch.save([1, 2, 3], root / 'list.pth')
    (root / 'metrics.json').write_text('{}')
    model = MODELS.build(Config.fromfile(root / 'good.py').model)
    torch.save(dict(state_dict=model.state_dict()), root / 'classifier.pth')
    np.save(root / 'array.npy', np.zeros(3))
    return root


# Per tool: what is given, of which @ is the folder of the files, and a part of the sentence.
BOTH = (
    ('@/none.py', '@/other.pth'),
    ('@', '@/other.pth'),
    ('@/syntax.py', '@/other.pth'),
    ('@/text.txt', '@/other.pth'),
    ('@/nothing.py', '@/other.pth'),
    ('@/typo.py', '@/other.pth'),
    ('@/argument.py', '@/other.pth'),
    ('@/good.py', '@/none.pth'),
    ('@/good.py', '@'),
    ('@/good.py', '@/text.pth'),
    ('@/good.py', '@/empty.pth'),
    ('@/good.py', '@/other.pth'),
    ('@/good.py', '@/list.pth'),
    ('@/good.py', '@/other.pth', '--cfg-options', 'model.0.x=1'),
    ('@/good.py', '@/other.pth', '--cfg-options', 'nonsense'),
    ('@/ssl.py', '@/other.pth'),
    ('@/multi.py', '@/other.pth'),
    ('@/no_data.py', '@/other.pth'),
)
# The same for tools that take CONFIG:CHECKPOINT.
PAIRS = tuple((f'{given[0]}:{given[1]}', *given[2:]) for given in BOTH)
TOOLS = {
    'test': BOTH
    + (
        ('@/good.py', '@/other.pth', '--tta-crops', 'nine'),
        ('@/good.py', '@/other.pth', '--tta-crops', 'ten'),
        ('@/good.py', '@/other.pth', '--out', '@/x.txt'),
        ('@/good.py', '@/other.pth', '--tta-crops', 'ten', '--tta-crop-size', '-3'),
    ),
    'search_tta': BOTH
    + (
        ('@/good.py', '@/other.pth', '--crop-size', '0'),
        ('@/good.py', '@/other.pth', '--rows', 'x'),
    ),
    'publish_model': BOTH
    + (
        ('@/good.py', '@/other.pth', '--license', 'do what you want'),
        ('@/good.py', '@/classifier.pth', '--results', '@/none.pkl'),
        ('@/good.py', '@/classifier.pth', '--results', '@/list.pth'),
        ('@/good.py', '@/classifier.pth', '--results', '@/metrics.json'),
    ),
    'export_model': tuple((*given[:2], '--out', '@/x.pt2', *given[2:]) for given in BOTH)
    + (
        ('@/good.py', '@/classifier.pth', '--out', '@/x.engine'),
        ('@/good.py', '@/classifier.pth', '--out', '@'),
        ('@/good.py', '@/classifier.pth', '--out', '@/x.pt2', '--images', '0'),
        ('@/good.py', '@/classifier.pth', '--out', '@/x.pt2', '--shape', '1', '2', '3'),
        ('@/good.py', '@/classifier.pth', '--out', '@/x.pt2', '--tolerance', '-1'),
    ),
    'pretrain': (
        ('--data', '@/none', '--out', '@/x'),
        ('--data', '@', '--out', '@/x'),
        ('--data', '@', '--out', '@/../x', '--model', 'resnet19'),
        ('--data', '@', '--out', '@/../x', '--epochs', 'many'),
    ),
    'distill': (
        ('--data', '@', '--encoder', '@/none.pth', '--out', '@/../x'),
        ('--data', '@', '--encoder', '@/other.pth', '--out', '@/../x'),
        ('--data', '@', '--encoder', '@/other.pth', '--out', '@/../x', '--loss', 'dkd'),
    ),
    'mmpretrain_tool': (('vis_tsnee',), ('no_such_tool', 'a', '--b')),
    'benchmark_ssl': BOTH + (('@/good.py', '@/other.pth', '--k', '0'),),
    'analysis/show_partition': BOTH + (('@/good.py', '@/other.pth', '--per-subset', '0'),),
    'analysis/figure2a': (
        *PAIRS,
        ('@/good.py',),
        ('@/good.py:@/other.pth', '--share', '1'),
        ('@/good.py:@/other.pth', '--names', 'a', 'b'),
    ),
    'analysis/figure2b': (
        *PAIRS,
        ('@/good.py',),
        ('@/good.py:@/other.pth', '--num-images', '1'),
        ('@/good.py:@/other.pth', '--out', '@/x.jpg'),
    ),
    'analysis/memory': (
        ('@/good.py', '--cfg-options', 'activation_checkpointing=backbone.nothing'),
        ('@/none.py',),
        ('@/text.txt',),
        ('@/nothing.py',),
        ('@/typo.py',),
        ('@/argument.py',),
        ('@/good.py', '--cfg-options', 'train_dataloader.batch_size=0'),
        ('@/good.py', '--amp'),
        ('@/good.py', '--cards', '0'),
        ('@/good.py', '--cfg-options', 'nonsense'),
    ),
    'image_demo': tuple(('@/img', *given) for given in BOTH)
    + (
        ('@/none', '@/good.py', '@/other.pth'),
        ('@/text.txt', '@/good.py', '@/other.pth'),
        ('@/img', '@/good.py', '@/other.pth', '--topk', '0'),
        ('@/img', '@/good.py', '@/other.pth', '--device', 'tpu7'),
    ),
    'train': tuple(
        (given[0], *given[2:]) for given in BOTH if given[0] != '@/good.py' or len(given) > 2
    )
    + (
        ('@/good.py', '--resume', '@/none.pth'),
        ('@/good.py', '--resume', '@/text.pth'),
        ('@/good.py', '--resume', '@/list.pth'),
    ),
    # Mistakes within a config are findings, on standard output: tests/doctor.
    'check_setup': (
        ('@/none.py',),
        ('@/syntax.py',),
        ('@/text.txt',),
        ('@/good.py', '--gpus', '0'),
        ('@/good.py', '--steps', '0'),
        ('@/good.py', '--sample', 'some'),
        ('@/good.py', '--cfg-options', 'nonsense'),
    ),
    'ensemble': (
        ('@/none.pkl',),
        ('@/text.txt',),
        ('@',),
        ('@/good.py',),
        ('@/array.npy',),
        ('@/good.py:@/none.pth',),
        ('@/list.pth', '--policy', 'median'),
        ('@/list.pth', '--weights', '@/none.json'),
        ('@/list.pth', '--weights', '@/text.txt'),
    ),
    'dataset_converters/vipriors': (
        ('@/none', '@/out', '--draw', '0'),
        ('@/img', '@/img', '--draw', '0', '--per-class', '1'),
        ('@/img', '@/out', '--lists', '@/none'),
        ('@/img', '@/out', '--draw', 'x'),
        ('@/img', '@/out', '--draw', '0'),
        ('@/img', '@/out', '--draw', '-1', '--per-class', '1'),
    ),
    'reproduce': (
        ('table9',),
        ('table3', '--gpus', '0'),
        ('table3', '--data', '@/none'),
        ('table3', '--data', '@/img'),
        ('table3', '--imagenet', '@/img'),
        ('table3', '--hours'),
        ('kl_r50', '--scale', 'laptop'),
        ('table3', '--scale', 'rehearsal', '--data', '@/img'),
    ),
    'dataset_converters/glyphs': (
        ('--out', '@/o.npz', '--fonts', '@/none'),
        ('--out', '@/o.npz', '--fonts', '@/img'),
        ('--out', '@', '--fonts', '@/img'),
        ('--out', '@/o.npz', '--fonts', '@/img', '--seed', '-1'),
    ),
    'dataset_converters/fashion_mnist50': (('--out', '@/o.npz', '--folder', '@/none'),),
}


# Per tool: arguments before the place that nothing can be written to, a file or a folder.
RESULTS = {
    'test': ('@/good.py', '@/classifier.pth', '--out', '@/text.txt/x.pkl'),
    'ensemble': ('@/good.py:@/classifier.pth', '--submission', '@/text.txt/x.csv'),
    'train': ('@/good.py', '--work-dir', '@/text.txt'),
    'search_tta': ('@/good.py', '@/classifier.pth', '--work-dir', '@/text.txt/x'),
    'publish_model': ('@/good.py', '@/classifier.pth', '--out', '@/text.txt'),
    'export_model': ('@/good.py', '@/classifier.pth', '--out', '@/text.txt/x.pt2'),
    'image_demo': ('@/img', '@/good.py', '@/classifier.pth', '--out-dir', '@/text.txt'),
    'analysis/show_partition': ('@/good.py', '@/classifier.pth', '--out', '@/text.txt'),
    'analysis/figure2a': ('@/good.py:@/classifier.pth', '--out', '@/text.txt/x.png'),
    'analysis/figure2b': ('@/good.py:@/classifier.pth', '--out', '@/text.txt/x.png'),
    'dataset_converters/glyphs': ('--fonts', '@/img', '--out', '@/text.txt/x.npz'),
    'dataset_converters/fashion_mnist50': ('--folder', '@/img', '--out', '@/text.txt/x.npz'),
}


@pytest.mark.parametrize(
    'tool',
    [tool if tool == 'test' else pytest.param(tool, marks=pytest.mark.slow) for tool in RESULTS],
)
def test_where_results_go_is_checked_before_the_work(files, tool):
    words = [word.replace('@', str(files)) for word in RESULTS[tool]]
    finished = run_tool(f'tools/{tool}.py', *words, check=False, IPIRM_TRACEBACK='')
    assert finished.returncode == 1
    assert f'cannot be written, because {files}/text.txt is no folder' in finished.stderr
    assert 'checkpoint' not in finished.stdout  # nothing was loaded


def test_all_tools_are_here():
    found = {
        path.relative_to(ROOT / 'tools').with_suffix('').as_posix()
        for path in (ROOT / 'tools').rglob('*.py')
    }
    assert set(TOOLS) == found


@pytest.mark.parametrize('tool', TOOLS)
def test_a_mistake_is_one_sentence(files, tmp_path, tool):
    check(files, tmp_path, tool, TOOLS[tool][:1])


@pytest.mark.slow
@pytest.mark.parametrize('tool', TOOLS)
def test_all_mistakes_are_one_sentence(files, tmp_path, tool):
    check(files, tmp_path, tool, TOOLS[tool][1:])


def check(files, work, tool, inputs):
    """Run a tool with wrong inputs, and see that each ends in one sentence."""
    before = sorted(path for path in files.rglob('*') if '__pycache__' not in path.parts)
    bad = []
    for given in inputs:
        words = [word.replace('@', str(files)) for word in given]
        if tool in ('train', 'test', 'search_tta', 'ensemble'):
            words[1:1] = ['--work-dir', work / 'work']
        finished = run_tool(f'tools/{tool}.py', *words, check=False, IPIRM_TRACEBACK='')
        lines = [line for line in finished.stderr.splitlines() if 'error: ' in line]
        ended = finished.returncode in (1, 2) and 'Traceback' not in finished.stderr
        if not ended or len(lines) != 1:
            bad.append((given, finished.returncode, finished.stderr[-700:]))
    assert not bad, '\n\n'.join(map(str, bad))
    assert sorted(p for p in files.rglob('*') if '__pycache__' not in p.parts) == before
