"""What test modules share: how they run the tools, and how they read what a run has left."""

from __future__ import annotations

import functools
import json
import os
import re
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from tempfile import TemporaryFile

import mmpretrain
import torch

import ipirm_mm  # noqa: F401  (allows the types that MMEngine's checkpoints hold)

ROOT = Path(__file__).resolve().parents[1]
# MMPretrain's own tools and configs, as they are installed with it.
MIM = Path(mmpretrain.__file__).parent / '.mim'
FORKS_ARE_SAFE = sys.platform.startswith('linux')
TIMEOUT = 1800  # seconds; five times as long as the longest run takes on two cores

STAGE_ONE = 'configs/quickstart/ipirm_simclr_report.py'
# Stage I on 320 images, batches of 64: five steps per epoch, a partition every two epochs, and a
# checkpoint at the end (half a second is spent on each, for the layout of the config in it).
SMALL_STAGE_ONE = (
    'train_dataloader.dataset.indices=320',
    'train_dataloader.batch_size=64',
    'custom_hooks.0.interval=2',
    'custom_hooks.1.interval=10',
    'default_hooks.logger.interval=1',
    'default_hooks.checkpoint.interval=10',
    'train_cfg.val_interval=10',
    # The loss of each step, not a mean over ten.
    'log_processor.type=LogProcessor',
    'log_processor.window_size=1',
)


def environment(**more) -> dict[str, str]:
    """Variables that a tool gets: one thread, no accelerator, this Python for its children."""
    return {
        **os.environ,
        'OMP_NUM_THREADS': '1',
        'CUDA_VISIBLE_DEVICES': '',
        # Our package, and the modules that configs of tests import.
        'PYTHONPATH': f'{ROOT}{os.pathsep}{ROOT / "tests/data"}',
        'PATH': f'{Path(sys.executable).parent}{os.pathsep}{os.environ["PATH"]}',
        **{name: str(value) for name, value in more.items()},
    }


def run(*command, check=True, cwd=ROOT, **variables) -> subprocess.CompletedProcess:
    """Run a command in a new process.

    For launchers, and for what only a new process shows. Every other script starts much faster by
    :func:`run_tool`.

    Args:
        *command: Program and arguments.
        check: Whether to fail unless it exits with status 0.
        cwd: Folder that it starts in.
        **variables: Further environment variables.
    """
    finished = subprocess.run(
        [str(part) for part in command],
        cwd=cwd,
        env=environment(**variables),
        capture_output=True,
        text=True,
        timeout=TIMEOUT,
    )
    return checked(finished) if check else finished


def run_python(script, *arguments, check=True, **variables) -> subprocess.CompletedProcess:
    """Do what :func:`run_tool` does, in a new process."""
    return run(sys.executable, script, *arguments, check=check, **variables)


def checked(finished: subprocess.CompletedProcess) -> subprocess.CompletedProcess:
    """Return a finished run if its status is 0; otherwise fail with what it has printed."""
    assert finished.returncode == 0, finished.stdout[-3000:] + finished.stderr[-3000:]
    return finished


@functools.cache
def fork_server() -> socket.socket:
    """Start ``tests/fork_server.py``, once in each pytest process; it ends with that process."""
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    subprocess.Popen(
        [sys.executable, str(ROOT / 'tests/fork_server.py'), str(theirs.fileno())],
        pass_fds=[theirs.fileno()],
        env=environment(PYTHONPATH=''),  # each run brings its own
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
    )
    theirs.close()
    return ours


@contextmanager
def fork(
    script, *arguments, cwd=ROOT, **variables
) -> Iterator[Callable[[], subprocess.CompletedProcess]]:
    """Start a script in a fork of :func:`fork_server`; gives a function that waits for its end."""
    reader, writer = os.pipe()
    with open(reader, 'rb') as status, TemporaryFile() as stdout, TemporaryFile() as stderr:
        request = dict(
            argv=[str(script), *map(str, arguments)],
            env=environment(**variables),
            cwd=str(cwd),
            timeout=TIMEOUT,
        )
        descriptors = [stdout.fileno(), stderr.fileno(), writer]
        socket.send_fds(fork_server(), [json.dumps(request).encode()], descriptors)
        os.close(writer)

        def wait() -> subprocess.CompletedProcess:
            code = status.read()  # comes at the end of the run, which the server sees to
            printed = []
            for file in (stdout, stderr):
                file.seek(0)
                printed.append(file.read().decode(errors='replace'))
            assert code, f'the server has died that runs {script}\n{printed[0]}\n{printed[1]}'
            return subprocess.CompletedProcess(str(script), int(code), *printed)

        yield wait


def run_tool(script, *arguments, check=True, cwd=ROOT, **variables) -> subprocess.CompletedProcess:
    """Run a Python script, by default from the repository's root, without the seconds its imports take.

    It runs in a process of its own, forked from one that has imported PyTorch and MMPretrain and
    nothing of ours (``tests/fork_server.py``).

    Args:
        script: Path, relative to the repository or absolute.
        *arguments: Its arguments.
        check: Whether to fail unless it exits with status 0.
        cwd: Folder that it starts in.
        **variables: Further environment variables.
    """
    if not FORKS_ARE_SAFE:
        return run_python(script, *arguments, check=check, cwd=cwd, **variables)
    with fork(script, *arguments, cwd=cwd, **variables) as wait:
        finished = wait()
    return checked(finished) if check else finished


def launch(tool, processes, *arguments, check=True) -> subprocess.CompletedProcess:
    """Run ``tools/dist_train.sh`` or ``tools/dist_test.sh``.

    Args:
        tool: ``'train'`` or ``'test'``.
        processes: How many processes to start.
        *arguments: Config, for ``'test'`` the checkpoint, and further arguments.
        check: Whether to fail unless it exits with status 0.
    """
    files = dict(train=1, test=2)[tool]
    command = (*arguments[:files], processes, *arguments[files:])
    return run('bash', f'tools/dist_{tool}.sh', *command, check=check, PORT=free_port())


def fork_ranks(tool, processes, *arguments) -> None:
    """Do what :func:`launch` does without its launcher, and without the seconds imports take.

    The processes get the environment variables and the flag that PyTorch's launcher and our
    script give them, and talk to each other like those. What the launcher does is not tested.

    Args:
        tool: ``'train'`` or ``'test'``.
        processes: How many processes to start.
        *arguments: Config, for ``'test'`` the checkpoint, and further arguments.
    """
    if not FORKS_ARE_SAFE:
        launch(tool, processes, *arguments)
        return
    common = dict(
        WORLD_SIZE=processes,
        LOCAL_WORLD_SIZE=processes,
        MASTER_ADDR='127.0.0.1',
        MASTER_PORT=free_port(),
    )
    given = (f'tools/{tool}.py', '--launcher', 'pytorch', *arguments)
    with ExitStack() as stack:
        waits = [
            stack.enter_context(fork(*given, RANK=rank, LOCAL_RANK=rank, **common))
            for rank in range(processes)
        ]
        for wait in waits:
            checked(wait())


def free_port() -> str:
    """Return a port that nothing listens on."""
    with socket.socket() as probe:
        probe.bind(('127.0.0.1', 0))
        return str(probe.getsockname()[1])


def fails_with(finished: subprocess.CompletedProcess, *messages: str) -> None:
    """See that a tool has ended with status 1 and the sentence for the user, and nothing more."""
    assert finished.returncode == 1, finished.stderr[-2000:]
    for message in messages:
        assert message in finished.stderr
    assert 'Traceback' not in finished.stderr


def train_stage_one(
    work_dir,
    *options,
    arguments=(),
    config=STAGE_ONE,
    start=run_tool,
    tool='tools/train.py',
    **more,
) -> subprocess.CompletedProcess:
    """Train Stage I for some steps on few images.

    Args:
        work_dir: Where to.
        *options: Settings for ``--cfg-options``, after those of ``SMALL_STAGE_ONE``.
        arguments: Further arguments of the tool.
        config: Path of the config.
        start: :func:`run_tool`, or :func:`run_python` for a new process.
        tool: Path of the tool.
        **more: Further arguments of ``start``.
    """
    given = ('--work-dir', work_dir, *arguments, '--cfg-options', *SMALL_STAGE_ONE, *options)
    return start(tool, config, *given, **more)


def write_cropped_config(path, base) -> None:
    """Write a config of the quickstart with the test images of a full-scale one: resized, cropped.

    Args:
        path: Where to.
        base: Path of a config of a classifier, from the repository's root.
    """
    pipeline = [
        dict(type='ResizeEdge', scale=32),
        dict(type='CenterCrop', crop_size=28),
        dict(type='PackInputs', meta_keys=('sample_idx', 'img_path')),
    ]
    lines = [f"_base_ = ['{ROOT / base}']"]
    for loader in ('val_dataloader', 'test_dataloader'):
        lines.append(f'{loader} = dict(dataset=dict(pipeline={pipeline}))')
    path.write_text('\n'.join(lines))


def losses(work_dir) -> dict[int, float]:
    """Loss of each step, over all runs in a folder."""
    values = {}
    for path in sorted(Path(work_dir).glob('*/vis_data/scalars.json')):
        for line in path.read_text().splitlines():
            record = json.loads(line)
            if 'loss' in record:
                values[record['step']] = record['loss']
    return values


def checkpoint(work_dir, epoch) -> dict:
    """Load the checkpoint that a run has written after an epoch."""
    return torch.load(Path(work_dir) / f'epoch_{epoch}.pth', weights_only=True, map_location='cpu')


def partitions(work_dir, epoch) -> torch.Tensor:
    """Return the partitions in a checkpoint, one in a row."""
    state = checkpoint(work_dir, epoch)['state_dict']
    return state['partitions.assignments'][: int(state['partitions.count'])]


def same_training(one, two) -> None:
    """See that weights, buffers, optimizer and schedules are equal to the last bit.

    Args:
        one: Content of a checkpoint.
        two: Content of another.
    """
    for part in ('state_dict', 'optimizer', 'param_schedulers'):
        assert (part in one) == (part in two)
        _compare(one.get(part), two.get(part), part)
    assert [one['meta'][key] for key in ('epoch', 'iter')] == [
        two['meta'][key] for key in ('epoch', 'iter')
    ]


def _compare(one, two, name) -> None:
    if isinstance(one, dict):
        assert one.keys() == two.keys(), name
        for key in one:
            _compare(one[key], two[key], f'{name}.{key}')
    elif isinstance(one, (list, tuple)):
        assert len(one) == len(two), name
        for number, pair in enumerate(zip(one, two)):
            _compare(*pair, f'{name}.{number}')
    elif isinstance(one, torch.Tensor):
        assert torch.equal(one, two), name
    else:
        assert one == two, name


def accuracy(finished: subprocess.CompletedProcess) -> str:
    """Return the last top-1 accuracy that a tool has printed."""
    return re.findall(r'accuracy/top1: ([0-9.]+)', finished.stdout + finished.stderr)[-1]


def open_in_browser(page: Path, width: int, picture: Path) -> list[str]:
    """Open a page in headless Chromium, and take a picture of it.

    Args:
        page: The HTML file.
        width: Width of the window in pixels.
        picture: PNG file to write.

    Returns:
        What the page wrote to the browser's console: errors of scripts, files that are missing.
    """
    flags = ('--headless', '--no-sandbox', '--disable-gpu', '--hide-scrollbars')
    finished = subprocess.run(
        [
            'chromium',
            *flags,
            '--enable-logging=stderr',
            f'--window-size={width},2400',
            f'--screenshot={picture}',
            page.resolve().as_uri(),
        ],
        capture_output=True,
        text=True,
        timeout=120,
    )
    return [line for line in finished.stderr.splitlines() if 'CONSOLE' in line]
