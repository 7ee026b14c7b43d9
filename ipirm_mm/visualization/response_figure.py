"""Heat map of responses to augmentations, and accuracy of parts: Figure 2 (a) of the report."""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

# Okabe and Ito's colors, which color-blind people can tell apart; without yellow.
COLORS = ('#0072B2', '#E69F00', '#009E73', '#CC79A7', '#56B4E9', '#D55E00')
_INK, _GRAY = '#1f2328', '#59636e'
PARTS = ('all', 'equivariant', 'unrelated')
_PART_NAMES = dict(
    all='all dimensions', equivariant='aug. equivariant', unrelated='aug. unrelated'
)


class Accuracy(NamedTuple):
    """Accuracy of a part of the dimensions, in percent.

    Attributes:
        value: Accuracy.
        interval: Lower and upper end of its interval.
        random: Accuracy of random parts of that size, empty where there is no such control.
    """

    value: float
    interval: tuple[float, float]
    random: Sequence[float] = ()


class EncoderResponse(NamedTuple):
    """What is drawn of an encoder.

    Attributes:
        name: Name of the encoder.
        responses: Response of each dimension, by the name of the augmentation, ``(D,)`` each;
            sorted by the mean over the augmentations, the largest first.
        extra: The same for what is no augmentation; may be empty.
        first: Number of dimensions in the first part.
        accuracy: Accuracy of each of :data:`PARTS`.
    """

    name: str
    responses: Mapping[str, np.ndarray]
    extra: Mapping[str, np.ndarray]
    first: int
    accuracy: Mapping[str, Accuracy]


def draw_responses(encoders: Sequence[EncoderResponse]) -> bytes:
    """Draw one heat map per encoder, and below them the accuracies of its parts as bars.

    Args:
        encoders: The encoders, which were tried on the same images.

    Returns:
        A PNG file.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    rows = max(len(encoder.responses) + len(encoder.extra) for encoder in encoders)
    height = 1.0 + 0.34 * rows
    figure = Figure(
        figsize=(max(7.5, 4.6 * len(encoders)), height + 3.3), dpi=110, layout='constrained'
    )
    FigureCanvasAgg(figure)
    # `Any`, because the type stubs say that it may be one figure.
    parts: Any = figure.subfigures(2, 1, height_ratios=(height, 3.1))
    upper, lower = parts
    values = np.concatenate(
        [row for e in encoders for row in (*e.responses.values(), *e.extra.values())]
    )
    # A few dimensions that are almost constant respond without measure.
    largest = float(np.quantile(values[np.isfinite(values)], 0.98)) if values.size else 1.0
    maps = upper.subplots(1, len(encoders), squeeze=False, sharey=True)[0]
    shown = [_heat_map(axes, encoder, largest) for axes, encoder in zip(maps, encoders)]
    bar = upper.colorbar(shown[0], ax=list(maps), extend='max', fraction=0.03, pad=0.015)
    bar.set_label('response', fontsize=9)
    bar.ax.tick_params(labelsize=8)
    _bars(lower.subplots(), encoders)
    buffer = io.BytesIO()
    figure.savefig(buffer, format='png', pil_kwargs=dict(optimize=True))
    return buffer.getvalue()


def _heat_map(axes: Any, encoder: EncoderResponse, largest: float) -> Any:
    """Draw the responses, a row for each augmentation."""
    rows = {**encoder.responses, **encoder.extra}
    picture = np.stack([np.where(np.isfinite(row), row, largest) for row in rows.values()])
    shown = axes.imshow(
        picture, aspect='auto', cmap='cividis', vmin=0, vmax=largest, interpolation='nearest'
    )
    dimensions = picture.shape[1]
    axes.axvline(encoder.first - 0.5, color='white', linewidth=3)
    axes.axvline(encoder.first - 0.5, color=_INK, linewidth=1.2, linestyle='--')
    if encoder.extra:
        axes.axhline(len(encoder.responses) - 0.5, color='white', linewidth=4)
    names = [*encoder.responses, *(f'{name}\n(no augmentation)' for name in encoder.extra)]
    axes.set_yticks(range(len(rows)), names, fontsize=9)
    axes.set_xlabel(f'{dimensions} dimensions, by mean response to augmentations', fontsize=9)
    axes.tick_params(axis='x', labelsize=8)
    axes.set_title(encoder.name, fontsize=11, fontweight='bold', pad=22, color=_INK)
    middles = (encoder.first / 2 - 0.5, (encoder.first + dimensions) / 2 - 0.5)
    for middle, part in zip(middles, PARTS[1:]):
        axes.annotate(
            _PART_NAMES[part],
            (middle, 1),
            (0, 4),
            xycoords=('data', 'axes fraction'),
            textcoords='offset points',
            ha='center',
            va='bottom',
            fontsize=9,
            color=_GRAY,
        )
    return shown


def _bars(axes: Any, encoders: Sequence[EncoderResponse]) -> None:
    """Draw the accuracies, and the range of the control over each bar."""
    width = 0.8 / len(encoders)
    tops = []
    for number, encoder in enumerate(encoders):
        color = COLORS[number % len(COLORS)]
        places = [part + (number + 0.5) * width - 0.4 for part in range(len(PARTS))]
        found = [encoder.accuracy[part] for part in PARTS]
        values = [one.value for one in found]
        errors = np.array(
            [
                (max(0, v - one.interval[0]), max(0, one.interval[1] - v))
                for v, one in zip(values, found)
            ]
        ).T
        axes.bar(
            places,
            values,
            0.92 * width,
            label=encoder.name,
            color=color,
            yerr=errors,
            error_kw=dict(ecolor=_INK, elinewidth=1, capsize=3),
        )
        for place, one in zip(places, found):
            axes.text(
                place,
                1.5,
                f'{one.value:.1f}',
                ha='center',
                fontsize=9,
                color='white' if number % 2 == 0 else _INK,
            )
            if one.random:
                mean, low, high = np.mean(one.random), min(one.random), max(one.random)
                axes.errorbar(
                    place + 0.3 * width,
                    mean,
                    yerr=[[mean - low], [high - mean]],
                    fmt='D',
                    markersize=5,
                    color='white',
                    markeredgecolor=_INK,
                    ecolor=_INK,
                    capsize=2,
                    label='random dimensions, as many (lowest to highest)'
                    if number == len(encoders) - 1 and one is found[1]
                    else None,
                )
            tops += [one.interval[1], *one.random]
    axes.set_xticks(range(len(PARTS)), [_PART_NAMES[part] for part in PARTS], fontsize=10)
    axes.set_ylabel('accuracy of a linear probe, %', fontsize=9)
    axes.tick_params(axis='y', labelsize=8)
    axes.set_ylim(0, min(100, 1.1 * max(tops)))
    axes.grid(axis='y', alpha=0.25)
    axes.set_axisbelow(True)
    axes.spines[['top', 'right']].set_visible(False)
    axes.figure.legend(loc='outside lower center', ncols=4, fontsize=9, frameon=False)
