"""Tasks that several processes can share out."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, Protocol

# Called with the fraction done, 0 to 1, and a text.
Progress = Callable[[float, str], None]
# A part of some work. Its result must be the same in every process, but for rounding, and hold no
# tensors but on the CPU.
Task = Callable[[Progress], Any]


class Share(Protocol):
    """Does tasks, and returns their results in the order of the tasks.

    Costs are what each takes, compared with the others; without them, all take the same.
    """

    def __call__(  # noqa: D102
        self, tasks: Sequence[Task], report: Progress, costs: Sequence[float] | None = None
    ) -> list[Any]: ...


def ignore_progress(fraction: float, text: str) -> None:
    """Report nothing."""


def one_by_one(
    tasks: Sequence[Task],
    report: Progress = ignore_progress,
    costs: Sequence[float] | None = None,
) -> list[Any]:
    """Do all tasks in this process.

    Args:
        tasks: The tasks.
        report: Told the progress. Defaults to nothing.
        costs: What each takes, compared with the others. Defaults to None: the same.

    Returns:
        Their results, in order.
    """
    costs = costs or [1.0] * len(tasks)
    results = []
    done = 0.0
    for task, cost in zip(tasks, costs):
        results.append(task(partial(report_part, report, done / sum(costs), cost / sum(costs))))
        done += cost
    return results


def report_part(report: Progress, begin: float, share: float, fraction: float, text: str) -> None:
    """Report the progress of one part as progress of the whole.

    Args:
        report: Told the progress of the whole.
        begin: Fraction of the whole where the part begins.
        share: Fraction of the whole that the part is.
        fraction: Fraction of the part that is done.
        text: What is done.
    """
    report(begin + share * fraction, text)
