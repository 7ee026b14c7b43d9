"""Old names of arguments, which keep working for one release."""

from __future__ import annotations

import functools
import warnings
from collections.abc import Callable, Mapping
from typing import Any, TypeVar

Init = TypeVar('Init', bound=Callable[..., None])

# Set by `renamed_arguments`, for the test that every old name works.
OLD_NAMES = '__old_names__'


def renamed_arguments(
    values: Mapping[str, Mapping[Any, Any]] | None = None, **names: str
) -> Callable[[Init], Init]:
    """Let ``__init__`` accept arguments by their old names, each with one warning.

    An old name wins over the new one. Both are there when a config of the old spelling inherits
    from one of ours, which has the new spelling, and then the old name is the user's.

    .. code-block:: python

        class Head:
            @renamed_arguments(reduction='objective', values=dict(objective=dict(mean='authors')))
            def __init__(self, objective='authors'): ...

    Args:
        values: For arguments whose values were renamed too: by the new name of the argument, the
            new value for each old value. Defaults to None.
        **names: New name for each old name.

    Returns:
        A decorator for ``__init__``.
    """

    def decorate(init: Init) -> Init:
        @functools.wraps(init)
        def wrapper(self: Any, *args: Any, **kwargs: Any) -> None:
            for old, new in names.items():
                if old not in kwargs:
                    continue
                value = kwargs.pop(old)
                inherited = f'; {new}={kwargs[new]!r} is not used' if new in kwargs else ''
                kwargs[new] = (values or {}).get(new, {}).get(value, value)
                warnings.warn(
                    f'{type(self).__name__}: {old} is now called {new}. Write {new}='
                    f'{kwargs[new]!r} instead of {old}={value!r}{inherited}. The old name will '
                    'stop working in the next release.',
                    FutureWarning,
                    stacklevel=2,
                )
            init(self, *args, **kwargs)

        setattr(wrapper, OLD_NAMES, dict(names))
        return wrapper  # type: ignore[return-value]

    return decorate
