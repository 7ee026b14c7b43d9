"""What the hardware can do at most, and what a computation asks of it.

    python benchmarks/hardware.py [--threads 1 2]

Prints the rate of float32 matrix products and the memory bandwidth of the device, medians of some
runs. The other benchmarks set their times beside two limits: the operations of their matrix
products and convolutions at that rate, and the bytes that their operations read and write at that
bandwidth. Each is what the computation would take if it did nothing else. Neither is a strict
bound: data that stay in the caches move less than is counted, and some convolutions need fewer
operations (Winograd's) or, on a GPU, less exact ones (TF32).

Elementwise arithmetic, exponentials for example, counts as bytes only. Operations of torch are
counted, those of NumPy, Pillow and OpenCV are not.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from mmengine.device import get_device
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.flop_counter import FlopCounterMode

from ipirm_mm.visualization import format_table

# Bytes of each of three arrays: much more than the caches of a processor or GPU hold.
ARRAY_BYTES = 2**28
COLUMNS = (
    ('name', 'device'),
    ('products', 'products, 10^9 operations/s'),
    ('memory', 'memory, 10^9 bytes/s'),
)


class Work(NamedTuple):
    """What a computation asks of the hardware.

    Attributes:
        operations: Operations of its matrix products and convolutions: two per multiplication
            and addition.
        bytes: What its operations read and write.
    """

    operations: float
    bytes: float


class Limits(NamedTuple):
    """What the hardware can do at most, per second."""

    operations: float
    bytes: float

    def milliseconds(self, work: Work) -> tuple[float, float]:
        """Times that some work would take if there were only its products, or only its bytes."""
        return 1e3 * work.operations / self.operations, 1e3 * work.bytes / self.bytes


class _Traffic(TorchDispatchMode):
    """Adds up the bytes of inputs and outputs of each operation that is not a view."""

    def __init__(self) -> None:
        super().__init__()
        self.bytes = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        inputs, outputs = _tensors((args, kwargs)), _tensors(result)
        storages = {tensor.untyped_storage().data_ptr() for tensor in inputs}
        shared = any(tensor.untyped_storage().data_ptr() in storages for tensor in outputs)
        # What changes its input in place shares memory too, but reads and writes it.
        if func._schema.is_mutable or not shared:
            self.bytes += sum(_size(tensor) for tensor in (*inputs, *outputs))
        return result


def _tensors(tree: Any) -> list[Tensor]:
    leaves = tree_leaves(tree)
    return [leaf for leaf in leaves if isinstance(leaf, Tensor) and leaf.numel()]


def _size(tensor: Tensor) -> int:
    """Bytes of a tensor; an expanded one has no more than its storage."""
    return min(tensor.numel() * tensor.element_size(), tensor.untyped_storage().nbytes())


def count(step: Callable[[], object]) -> Work:
    """Count the work of a computation, with that of its backward pass if it has one.

    Args:
        step: The computation; it is run once.

    Returns:
        Its work; the bytes are an upper estimate, as the module's docstring says.
    """
    with FlopCounterMode(display=False) as products, _Traffic() as traffic:
        step()
    return Work(products.get_total_flops(), traffic.bytes)


def measure(device: str, threads: int, runs: int = 5) -> Limits:
    """Measure what a device can do.

    Args:
        device: The device.
        threads: Number of threads on a processor.
        runs: Number of runs of which medians are taken. Defaults to 5.

    Returns:
        Rate of float32 products, of the faster of two sizes; and bandwidth of ``a = b + 2 c``.
    """
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    rates = []
    for side in (1024, 2048) if device == 'cpu' else (4096, 8192):
        a, b, product = (torch.ones(side, side, device=device) for _ in range(3))
        seconds = _seconds(lambda a=a, b=b, product=product: torch.mm(a, b, out=product), runs)
        rates.append(2 * side**3 / seconds)
    a, b, c = (torch.ones(ARRAY_BYTES // 4, device=device) for _ in range(3))
    seconds = _seconds(lambda: torch.add(b, c, alpha=2, out=a), runs)
    torch.set_num_threads(before)
    return Limits(max(rates), 3 * ARRAY_BYTES / seconds)


def _seconds(step: Callable[[], Tensor], runs: int) -> float:
    times = []
    for run in range(runs + 1):
        begin = time.perf_counter()
        step().view(-1)[0].item()  # waits for a GPU
        if run:  # the first warms up
            times.append(time.perf_counter() - begin)
    return statistics.median(times)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument('--threads', type=int, nargs='+', default=[1, 2])
    args = parser.parse_args()
    rows = []
    for threads in args.threads:
        limits = measure(get_device(), threads)
        rows.append(limit_row(get_device(), threads, limits))
    print(format_table(rows, COLUMNS))


def limit_row(device: str, threads: int, limits: Limits) -> dict[str, str | float]:
    """Row of the table of what the hardware can do, see ``COLUMNS``."""
    name = f'{device}, {threads} thread{"s" * (threads > 1)}'
    return dict(name=name, products=limits.operations / 1e9, memory=limits.bytes / 1e9)


if __name__ == '__main__':
    main()
