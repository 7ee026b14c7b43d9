"""Draw docs/method.svg, the figure of the method: ``python docs/draw_method.py``.

Text becomes paths, so that the figure looks the same wherever it is shown; it stands on a card of
its own color, so that it can be read in light and dark mode.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import matplotlib

matplotlib.use('Agg')
from matplotlib import pyplot as plt
from matplotlib.axes import Axes
from matplotlib.patches import Ellipse, FancyArrowPatch, FancyBboxPatch

WIDTH, HEIGHT = 1440, 620  # units of the drawing
CARD, INK, GRAY, LINE = '#ffffff', '#1f2328', '#59636e', '#d1d9e0'
BLUE, GREEN, PURPLE = '#2f6db5', '#23806a', '#7b519d'
ORANGE_IMAGE, BLUE_IMAGE = '#e8853a', '#4a90d9'
TINTS = {BLUE: '#eef4fb', GREEN: '#ecf7f3', PURPLE: '#f5effa'}


def box(
    ax: Axes,
    left: float,
    bottom: float,
    width: float,
    height: float,
    face: str = CARD,
    edge: str = LINE,
    radius: float = 10,
    line: float = 1.2,
) -> None:
    """A box with round corners, by its lower left corner and its size."""
    shape = f'round,pad=0,rounding_size={radius}'
    ax.add_patch(
        FancyBboxPatch(
            (left, bottom), width, height, boxstyle=shape, fc=face, ec=edge, lw=line, zorder=1
        )
    )


def text(ax: Axes, x: float, y: float, words: str, size: float = 12.5, **kwargs: object) -> None:
    """Centered text, unless ``ha`` says otherwise."""
    options = dict(ha='center', va='center', color=INK, fontsize=size, zorder=5, linespacing=1.35)
    ax.text(x, y, words, **{**options, **kwargs})


def arrow(
    ax: Axes,
    start: tuple[float, float],
    end: tuple[float, float],
    color: str = GRAY,
    bend: float = 0.0,
    width: float = 1.8,
    head: float = 15,
) -> None:
    """An arrow, straight or bent."""
    ax.add_patch(
        FancyArrowPatch(
            start,
            end,
            arrowstyle='-|>',
            mutation_scale=head,
            connectionstyle=f'arc3,rad={bend}',
            lw=width,
            color=color,
            shrinkA=0,
            shrinkB=0,
            zorder=4,
        )
    )


def panel(ax: Axes, left: float, width: float, color: str, title: str, subtitle: str) -> None:
    """The ground of a stage, with its title."""
    box(ax, left, 20, width, HEIGHT - 40, TINTS[color], TINTS[color], 14)
    text(
        ax, left + 20, HEIGHT - 54, title, 16, color=color, ha='left', va='baseline', weight='bold'
    )
    text(ax, left + 20, HEIGHT - 80, subtitle, 12, color=GRAY, ha='left', va='baseline')


def image(ax: Axes, x: float, y: float, color: str, marker: str, size: float = 9) -> None:
    """The features of an image: its color and its shape are two semantics."""
    ax.plot(x, y, marker, ms=size, mfc=color, mec=CARD, mew=1.1, zorder=4)


def subset(ax: Axes, x: float, y: float, color: str, name: str) -> None:
    """A subset of Step 1: its loss compares images of this subset only."""
    ax.add_patch(Ellipse((x, y), 132, 116, fc=CARD, ec=color, lw=1.6, ls=(0, (5, 3)), zorder=2))
    pair, others = ((-26, 16), (-6, 32)), ((32, 10), (22, -28), (-28, -26))
    for dx, dy in others:
        ax.plot(
            [x + pair[0][0], x + dx],
            [y + pair[0][1], y + dy],
            color='#c0392b',
            lw=1.1,
            ls=(0, (2, 2)),
            zorder=3,
        )
    ax.plot(*zip(*[(x + dx, y + dy) for dx, dy in pair]), color='#1a7f37', lw=2.4, zorder=3)
    for dx, dy in pair:
        image(ax, x + dx, y + dy, color, 'o')
    for (dx, dy), marker in zip(others, 'sos'):
        image(ax, x + dx, y + dy, color, marker, 9 if marker == 'o' else 8)
    text(ax, x, y - 72, name, 11, color=GRAY)


def stage_1(ax: Axes) -> None:
    """Train the encoder and find a partition, in turns."""
    panel(ax, 20, 780, BLUE, 'Stage I: IP-IRM', 'self-supervised, on images without labels')
    top, bottom, width = 432, 84, 360
    box(ax, 40, bottom, width, top - bottom)
    box(ax, 420, bottom, width, top - bottom)

    # Step 1
    text(ax, 220, top - 26, r'Step 1: train the encoder $\varphi$', 13.5, weight='bold')
    subset(ax, 138, 318, ORANGE_IMAGE, 'subset 1')
    subset(ax, 302, 318, BLUE_IMAGE, 'subset 2')
    equation = (
        r'$\min_{\varphi}\;\sum_{P}\,\sum_{k}\;\left[\,L_k+\lambda_1'
        r'\,\|\nabla_{\!\theta}\,L_k\|^2\,\right]$'
    )
    text(ax, 220, 198, equation, 15.5)
    words = (
        'Eq. 1: contrast only within a subset\n'
        'Eq. 2: plus the invariance penalty,\nover all partitions found so far'
    )
    text(ax, 220, 130, words, 11.5, color=GRAY)

    # Step 2
    text(ax, 600, top - 26, r'Step 2: find a partition, $\varphi$ frozen', 13.5, weight='bold')
    clusters = (
        (
            534,
            ORANGE_IMAGE,
            ((-40, 8), (-22, 38), (-18, -30), (2, 2), (14, -44), (22, 32), (36, -8)),
        ),
        (
            666,
            BLUE_IMAGE,
            ((-38, -12), (-28, 28), (-8, -38), (-2, 6), (16, 42), (30, -26), (38, 14)),
        ),
    )
    for center, color, offsets in clusters:
        for number, (dx, dy) in enumerate(offsets):
            marker = 'os'[number % 2]
            image(ax, center + dx, 322 + dy, color, marker, 9 if marker == 'o' else 8)
    ax.plot([594, 608], [384, 252], color=INK, lw=1.6, ls=(0, (5, 3)), zorder=3)
    text(ax, 534, 246, 'subset 1', 11, color=GRAY)
    text(ax, 668, 246, 'subset 2', 11, color=GRAY)
    equation = (
        r'$P^{*}=\mathrm{arg}\,\max_{P}\;\sum_{k}\,\left[\,L_k+\lambda_2'
        r'\,\|\nabla_{\!\theta}\,L_k\|^2\,\right]$'
    )
    text(ax, 600, 198, equation, 15.5)
    words = (
        'Eq. 3: loss and penalty as high as possible:\n'
        'a split along a semantic (here color) that\nthe encoder still entangles'
    )
    text(ax, 600, 130, words, 11.5, color=GRAY)

    # The loop
    arrow(ax, (230, top + 6), (590, top + 6), BLUE, -0.12, 2.4, 18)
    text(ax, 410, top + 52, 'every 50 epochs: features of all images', 12, color=BLUE)
    arrow(ax, (590, bottom - 6), (230, bottom - 6), BLUE, -0.1, 2.4, 18)
    text(ax, 410, 38, r'add $P^{*}$ to the partitions', 12, color=BLUE)


def stage_2(ax: Axes) -> None:
    """A teacher and a student, both from the encoder of Stage I."""
    left, width = 836, 340
    panel(ax, left, width, GREEN, 'Stage II: distillation', 'fine-tuning with labels')
    box(ax, left + 16, 388, 150, 96)
    box(ax, left + 174, 388, 150, 96, edge=GREEN, line=1.8)
    for x, name, words in (
        (left + 91, 'teacher', 'fine-tuned first,\nthen frozen'),
        (left + 249, 'student', 'plain classifier,\nas in MMPretrain'),
    ):
        text(ax, x, 460, name, 13.5, weight='bold')
        text(ax, x, 420, words, 11.5, color=GRAY)
        arrow(ax, (x, 385), (x, 339))

    middle = left + width / 2
    text(ax, middle, 505, r'both start from the encoder $\varphi$', 12, color=GREEN)
    box(ax, left + 16, 246, width - 32, 90)
    text(ax, middle, 314, r'distillation loss $L_d$ (Eq. 4)', 13)
    for number, name in enumerate(('KL', 'OFD', 'CRD')):
        x = left + 32 + 95 * number
        box(ax, x, 260, 86, 32, TINTS[GREEN], GREEN, 8, 1.1)
        text(ax, x + 43, 275, name, 12.5, color=GREEN, weight='bold')

    box(ax, left + 16, 138, width - 32, 62)
    text(ax, middle, 169, r'$L=\alpha\,L_{ce}+\beta\,L_d$', 18)
    arrow(ax, (middle, 243), (middle, 203))
    words = 'Eq. 5: cross-entropy plus distillation\nof logits, features or embeddings'
    text(ax, middle, 88, words, 11.5, color=GRAY)


def inference(ax: Axes) -> None:
    """Views and models, merged."""
    left, width = 1212, 208
    panel(ax, left, width, PURPLE, 'Inference', 'TTA and ensemble')
    rows = (
        ('image', '', 448, 36),
        ('views', 'flip, 5 or 10 crops', 350, 62),
        ('students', 'one or several', 252, 62),
        ('merge', 'mean, t-sharpen,\nweighted, ...', 130, 86),
        ('class', '', 58, 36),
    )
    middle = left + width / 2
    for number, (name, words, bottom, height) in enumerate(rows):
        box(ax, left + 16, bottom, width - 32, height)
        title = bottom + height - (20 if words else height / 2 + 1)
        text(ax, middle, title, name, 13.5, weight='bold')
        if words:
            text(ax, middle, (bottom + title - 12) / 2 + 2, words, 11.5, color=GRAY)
        if number:
            arrow(ax, (middle, rows[number - 1][2] - 3), (middle, bottom + height + 3))


def draw() -> plt.Figure:
    """The whole figure."""
    plt.rcParams.update({'font.family': 'DejaVu Sans', 'mathtext.fontset': 'cm'})
    plt.rcParams.update({'svg.fonttype': 'path', 'svg.hashsalt': 'method'})
    figure = plt.figure(figsize=(WIDTH / 100, HEIGHT / 100))
    figure.patch.set_alpha(0)
    ax = figure.add_axes((0, 0, 1, 1))
    ax.set_xlim(0, WIDTH)
    ax.set_ylim(0, HEIGHT)
    ax.axis('off')
    box(ax, 2, 2, WIDTH - 4, HEIGHT - 4, CARD, LINE, 18)
    stage_1(ax)
    stage_2(ax)
    inference(ax)
    arrow(ax, (804, 310), (833, 310), INK, width=2.6, head=20)
    arrow(ax, (1179, 310), (1209, 310), INK, width=2.6, head=20)
    return figure


def main() -> None:
    """Write the figure."""
    parser = argparse.ArgumentParser(description='Draw the figure of the method.')
    default = Path(__file__).with_name('method.svg')
    parser.add_argument('--out', type=Path, default=default, help='default: beside this script')
    args = parser.parse_args()
    draw().savefig(args.out, transparent=True, metadata={'Date': None})


if __name__ == '__main__':
    main()
