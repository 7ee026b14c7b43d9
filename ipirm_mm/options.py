"""Checks of the options in a config: a wrong value is named before it is used."""

from __future__ import annotations

import difflib
from collections.abc import Collection
from numbers import Integral, Real
from typing import Any

from .errors import UserError


def check_whole(name: str, value: Any, least: int = 1, most: int | None = None) -> None:
    """Check that an option is a whole number within its range.

    Args:
        name: Name of the option, such as ``'KNNHook.k'``.
        value: Its value.
        least: The least that is allowed. Defaults to 1.
        most: The most that is allowed. Defaults to None, any number.

    Raises:
        UserError: If it is not.
    """
    span = f'at least {least}' if most is None else f'from {least} to {most}'
    if isinstance(value, bool) or not isinstance(value, Integral):
        raise UserError(f'{name} must be a whole number, {span}, but is {value!r}')
    if int(value) < least or (most is not None and int(value) > most):
        raise UserError(f'{name} must be {span}, but is {value}')


def check_positive(name: str, value: Any) -> None:
    """Check that an option is a number above 0, as :func:`check_whole`."""
    _check_number(name, value, 'positive')
    if not value > 0:
        raise UserError(f'{name} must be positive, but is {value}')


def check_not_negative(name: str, value: Any) -> None:
    """Check that an option is a number of at least 0, as :func:`check_whole`."""
    _check_number(name, value, 'not negative')
    if not value >= 0:
        raise UserError(f'{name} must not be negative, but is {value}')


def check_one_of(name: str, value: Any, allowed: Collection[Any]) -> None:
    """Check that an option has a value that is known, as :func:`check_whole`.

    Args:
        name: Name of the option.
        value: Its value.
        allowed: The values that are known.
    """
    if not any(value is one or value == one for one in allowed):
        raise UserError(f'{name} must be one of {tuple(allowed)}, but is {value!r}')


def near_names(name: str, known: Collection[str]) -> str:
    """Say which known names are nearly a name: ``': did you mean A or B?'``, or nothing.

    Args:
        name: The name that is not known.
        known: The names that are.
    """
    lower = {one.lower(): one for one in known}
    found = difflib.get_close_matches(name.lower(), lower, n=3)
    return f': did you mean {" or ".join(lower[one] for one in found)}?' if found else ''


def _check_number(name: str, value: Any, what: str) -> None:
    if isinstance(value, bool) or not isinstance(value, Real):
        raise UserError(f'{name} must be a number, {what}, but is {value!r}')
