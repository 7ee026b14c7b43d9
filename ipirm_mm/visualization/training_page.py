"""The page of a training, which a browser loads again while it is written."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from ipirm_mm.utils import atomic_write

from .curves import Curves, draw_curves
from .pages import data_url, render


@dataclass
class Section:
    """A part of the page.

    Attributes:
        title: Heading.
        texts: Paragraphs above the pictures.
        pictures: PNG files, by their captions.
    """

    title: str
    texts: Sequence[str] = ()
    pictures: Mapping[str, bytes] = field(default_factory=dict)


def write_training_page(
    path: str | os.PathLike,
    title: str,
    status: str,
    done: float,
    figures: Mapping[str, Any],
    curves: Curves,
    sections: Sequence[Section],
    settings: Mapping[str, Any],
    next_steps: Mapping[str, str] | None = None,
    refresh: int = 20,
) -> None:
    """Write one self-contained HTML page, without scripts.

    Args:
        path: File to write, whole or not at all.
        title: Heading.
        status: How far the training is, in words.
        done: Part of the training that is done, 0 to 1. Below 1 the browser loads the page again
            every ``refresh`` seconds.
        figures: The newest figures, by their names.
        curves: Plots; see :func:`~ipirm_mm.visualization.curves.draw_curves`.
        sections: Pictures, under their headings.
        settings: What is trained: from names to values.
        next_steps: Commands for afterwards, by what they are for. Defaults to None: none.
        refresh: Seconds until a browser loads the page again. Defaults to 20.
    """
    # A picture for each plot: on a narrow screen they stand below each other.
    drawn = {
        name: draw_curves({name: lines}, width=5.6)
        for name, lines in curves.items()
        if any(lines.values())
    }
    page = render(
        'training_page.html',
        title=title,
        status=status,
        refresh=refresh if done < 1 else None,
        bar=round(done, 4) if done < 1 else None,
        figures=list(figures.items()),
        curves=[dict(source=data_url(png), caption=name) for name, png in drawn.items()],
        sections=[
            dict(
                title=section.title,
                texts=section.texts,
                pictures=[
                    dict(source=data_url(png), caption=caption)
                    for caption, png in section.pictures.items()
                ],
            )
            for section in sections
        ],
        settings=list(settings.items()),
        next=list((next_steps or {}).items()),
    )
    atomic_write(path, page)
