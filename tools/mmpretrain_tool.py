"""Run an analysis or visualization tool of MMPretrain, also with newer libraries than it knows.

    python tools/mmpretrain_tool.py NAME ARGUMENTS     e.g. vis_tsne CONFIG --checkpoint FILE
    python tools/mmpretrain_tool.py                    lists the tools

The tool is that of the installed MMPretrain and takes its own arguments. What it asks of
libraries that have changed since its release is bridged, see docs/ecosystem.md.
"""

from __future__ import annotations

import argparse
import difflib
import functools
import importlib
import importlib.metadata
import importlib.util
import inspect
import runpy
import sys
import types
from collections.abc import Callable
from pathlib import Path
from typing import Any

import mmpretrain
from mmengine.config import Config

from ipirm_mm import cli
from ipirm_mm.datasets import LoadImage, is_image
from ipirm_mm.errors import UserError

FOLDER = Path(mmpretrain.__file__).parent / '.mim' / 'tools'
FOLDERS = ('analysis_tools', 'visualization')
# What tools import that is not installed with MMPretrain: module, and name for pip.
NEEDED = dict(
    vis_tsne=('sklearn', 'scikit-learn'),
    vis_cam=('pytorch_grad_cam', 'grad-cam'),
    analyze_logs=('matplotlib', 'matplotlib'),
    browse_dataset=('matplotlib', 'matplotlib'),
    vis_scheduler=('matplotlib', 'matplotlib'),
)


def find_tools() -> dict[str, Path]:
    """MMPretrain's tools, the file of each by its name."""
    paths = sorted(path for folder in FOLDERS for path in (FOLDER / folder).glob('*.py'))
    return {path.stem: path for path in paths if path.stem != 'utils'}


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument('name', nargs='?', help='name of the tool; none lists all')
    parser.add_argument(
        'arguments', nargs=argparse.REMAINDER, help='arguments of the tool; --help prints them'
    )
    return parser.parse_args()


def bridge_vis_tsne() -> None:
    """Let ``TSNE`` take ``n_iter``, which scikit-learn 1.7 has removed for ``max_iter``."""
    manifold = importlib.import_module('sklearn.manifold')
    if 'n_iter' in inspect.signature(manifold.TSNE).parameters:
        return
    original = manifold.TSNE

    def tsne(*args: Any, n_iter: int | None = None, **kwargs: Any) -> Any:
        return original(*args, **kwargs, **({} if n_iter is None else dict(max_iter=n_iter)))

    manifold.TSNE = tsne


def bridge_vis_cam() -> None:
    """Mend ``pkg_resources``, ``use_cuda``, and pipelines that do not load their image.

    Setuptools 82 has removed ``pkg_resources``, and grad-cam 1.5 ``use_cuda``: it takes the
    model's device. Pipelines of array data sets, which hold their images, do not read a file.
    """
    if importlib.util.find_spec('pkg_resources') is None:
        module: Any = types.ModuleType('pkg_resources')
        module.get_distribution = lambda name: types.SimpleNamespace(
            version=importlib.metadata.version(name)
        )
        sys.modules['pkg_resources'] = module
    base = importlib.import_module('pytorch_grad_cam.base_cam').BaseCAM
    importlib.import_module('pytorch_grad_cam')  # defines the methods
    for method in base.__subclasses__():
        if 'use_cuda' not in inspect.signature(method.__init__).parameters:
            method.__init__ = _without_use_cuda(method.__init__)
    transforms = importlib.import_module('mmcv.transforms')

    class Compose(transforms.Compose):  # type: ignore[name-defined,misc]
        def __call__(self, results: dict) -> Any:
            return super().__call__(LoadImage()(dict(results, sample_idx=0)))

    transforms.Compose = Compose


def _without_use_cuda(original: Callable[..., None]) -> Callable[..., None]:
    @functools.wraps(original)
    def init(self: Any, *args: Any, use_cuda: bool = False, **kwargs: Any) -> None:
        original(self, *args, **kwargs)

    return init


def bridge_browse_dataset() -> None:
    """Mend two things: ``adjust_bbox`` of Matplotlib 3.11, and file names without ending.

    ``adjust_bbox`` asks for the renderer of its figure. Images of array data sets are named
    ``SPLIT/NUMBER``, and OpenCV tells the format of a picture by the ending of its name.
    """
    visualization = importlib.import_module('mmpretrain.visualization')

    class Visualizer(visualization.UniversalVisualizer):  # type: ignore[name-defined,misc]
        def visualize_cls(self, *args: Any, out_file: str | None = None, **kwargs: Any) -> Any:
            if out_file and not is_image(Path(out_file)):
                out_file += '.png'
            return super().visualize_cls(*args, out_file=out_file, **kwargs)

    visualization.UniversalVisualizer = Visualizer
    module: Any = importlib.import_module('matplotlib._tight_bbox')
    original = module.adjust_bbox
    if 'renderer' in inspect.signature(original).parameters:
        module.adjust_bbox = lambda figure, bbox, *args, **kwargs: original(
            figure, bbox, figure.canvas.get_renderer(), *args, **kwargs
        )


def bridge_vis_scheduler() -> None:
    """Leave out custom hooks, which the imitated training cannot run; allow a constant rate."""
    original = Config.fromfile

    def fromfile(*args: Any, **kwargs: Any) -> Config:
        config = original(*args, **kwargs)
        config.custom_hooks = []
        if config.get('param_scheduler') is None:
            config.param_scheduler = []
        return config

    Config.fromfile = fromfile  # type: ignore[method-assign]


BRIDGES: dict[str, Callable[[], None]] = dict(
    vis_tsne=bridge_vis_tsne,
    vis_cam=bridge_vis_cam,
    browse_dataset=bridge_browse_dataset,
    vis_scheduler=bridge_vis_scheduler,
)


def main() -> None:
    args = parse_args()
    tools = find_tools()
    if not tools:
        raise UserError(
            f'MMPretrain has no tools in {FOLDER}: install it by pip, which brings them along: '
            'pip install mmpretrain'
        )
    if args.name is None:
        print('\n'.join(tools))
        return
    name = args.name.removesuffix('.py')
    if name not in tools:
        near = difflib.get_close_matches(name, tools, n=1)
        hint = f'did you mean {near[0]}? ' if near else ''
        raise UserError(f'MMPretrain has no tool {name}: {hint}they are {", ".join(tools)}')
    module, package = NEEDED.get(name, ('', ''))
    if module and importlib.util.find_spec(module) is None:
        raise UserError(f'{name} needs {package}, which is missing: pip install {package}')
    BRIDGES.get(name, lambda: None)()
    sys.path.insert(0, str(tools[name].parent))  # some import their neighbors
    sys.argv = [str(tools[name]), *args.arguments]
    runpy.run_path(sys.argv[0], run_name='__main__')


if __name__ == '__main__':
    cli.run(main)
