"""What the doctor finds: one line per finding, and checks that do not hide each other."""

from __future__ import annotations

import os
import sys
import traceback
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import NamedTuple

from ipirm_mm.explain import find_user_error

LEVELS = ('ok', 'warning', 'error')
SHOWN = 3
LONGEST = 600


class Finding(NamedTuple):
    """A finding.

    Attributes:
        level: One of :data:`LEVELS`.
        part: What was checked, such as ``'data'``.
        text: What was found; of an error also what would be right, and what mends it.
    """

    level: str
    part: str
    text: str


class Findings:
    """Collects findings, and shows each as a line when it is made.

    Args:
        show: Gets each line. Defaults to ``print``.

    Attributes:
        found: The findings so far.
    """

    def __init__(self, show: Callable[[str], None] = print) -> None:
        self.show = show
        self.found: list[Finding] = []

    def add(self, level: str, part: str, text: str) -> None:
        """Add a finding. A fault that two checks find is shown once.

        Args:
            level: One of :data:`LEVELS`.
            part: What was checked.
            text: What was found.
        """
        faults = [known.text for known in self.found if known.level != 'ok']
        if level == 'ok' or text not in faults:
            self.found.append(Finding(level, part, text))
            self.show(f'{level:<8} {part:<16} {text}')

    @contextmanager
    def check(self, part: str) -> Iterator[None]:
        """Let a check fail without ending those that follow: what it raises is an error.

        Args:
            part: What is checked.
        """
        try:
            yield
        except Exception as error:  # of any type: whatever a config names is run
            if os.environ.get('IPIRM_TRACEBACK') == '1':
                sys.stdout.flush()
                traceback.print_exc()
            reason = find_user_error(error)
            if reason is None:
                lines = str(error).strip().splitlines() or ['']
                reason = (
                    f'it fails with {type(error).__name__}: {lines[-1]} (IPIRM_TRACEBACK=1 shows '
                    'where)'
                )
            if len(reason) > LONGEST:  # MMEngine shows whole sections of a config
                reason = f'{reason[:LONGEST]} ...'
            self.add('error', part, reason)

    def count(self, level: str) -> int:
        """Number of findings of a level.

        Args:
            level: One of :data:`LEVELS`.
        """
        return sum(finding.level == level for finding in self.found)


def listed(names: Sequence[str]) -> str:
    """Name the first few of many.

    Args:
        names: The names.
    """
    return ', '.join(names[:SHOWN]) + (', ...' if len(names) > SHOWN else '')


def counted(number: int, what: str) -> str:
    """Say how many, such as ``'1 image'`` or ``'1,000 images'``.

    Args:
        number: The number.
        what: Of what, in the singular.
    """
    ending = '' if number == 1 else 'es' if what.endswith('s') else 's'
    return f'{number:,} {what}{ending}'


def in_units(size: float) -> str:
    """Say a number of bytes, in kB, MB or GB of powers of ten.

    Args:
        size: The bytes.
    """
    unit, scale = next(
        ((unit, scale) for unit, scale in (('GB', 1e9), ('MB', 1e6)) if size >= scale), ('kB', 1e3)
    )
    return f'{size / scale:.1f} {unit}'
