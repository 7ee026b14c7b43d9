"""Write docs/reproduce.md: the commands of every table and figure, with hours and files.

python docs/list_reproduction.py
"""

from __future__ import annotations

import shlex
from functools import cache
from pathlib import Path

from ipirm_mm import cli
from ipirm_mm.reproduction import (
    CARD_TFLOPS,
    CARDS,
    TARGETS,
    Chain,
    Row,
    Step,
    add_target,
    read_models,
    training_hours,
)
from ipirm_mm.reproduction.chain import GPUS
from ipirm_mm.resources import find_by_basename
from ipirm_mm.utils import atomic_write
from ipirm_mm.visualization import format_markdown

ROOT = Path(__file__).resolve().parents[1]
PAGE = ROOT / 'docs/reproduce.md'
DATA = Step(
    'make the data',
    shlex.split(
        'python tools/dataset_converters/vipriors.py data/imagenet data/vipriors '
        '--lists data/lists'
    ),
    Path('data/vipriors'),
)
INTRODUCTION = f"""\
# The report, command by command

Made by `python docs/list_reproduction.py` from the configs. **None of it has been run at full
scale by this project**, which has neither the data nor the GPUs; no figure of the report has
been reproduced yet. What was run is the rehearsal below, in `make test-all`.

## In one command

    python tools/reproduce.py table3 --dry-run     # print the commands, and what is done
    python tools/reproduce.py table3               # run them, on 8 GPUs
    python tools/reproduce.py kl_r50               # one config, and all that it starts from
    python tools/reproduce.py all

`tools/reproduce.py` runs what is missing, skips what is done, and continues a training that was
cut off: after a failure, run the same command again. At the end it prints the table beside the
report's accuracies, and writes it to `work_dirs`. Accuracies are of the validation split. Those
of the test split, which the report has, come from the challenge's server, for the
`submission.csv` in each work folder.

- **Data.** `--imagenet data/imagenet --lists data/lists` makes `data/vipriors` first:
  [data.md](data.md).
- **Cards.** `--card 16` adds to each training what it needs to fit a card of 16 GB, `--card 32`
  of 32 GB ([memory.md](memory.md)). The report has V100 cards, of which there are both, and does
  not say which.
- **Fewer GPUs.** `--gpus 4` adds `--auto-scale-lr` to trainings; with `--gpus 1` there is no
  launcher.
- **Rehearsal.** Before weeks of GPUs, run everything with tiny networks, small images and one or
  two epochs, on a laptop, in about half an hour. It shows that data, disk and installation are
  in order. Its accuracies mean nothing. It writes to `work_dirs/rehearsal`.

      python tools/reproduce.py all --scale rehearsal --gpus 1

- **Laptop.** `--scale laptop` runs the same comparisons on Fashion-MNIST, over several seeds,
  with controls: [projects/laptop](../projects/laptop/README.md).

Hours are estimates. The operations of a training are counted (matrix products and convolutions,
forward and backward, those of teachers included) and divided by 8 cards of {CARD_TFLOPS} TFLOPS,
half of what the data sheet of the V100 gives in 32 bits. Loading of images, Step 2 of Stage I
and tests are not counted. For other cards: `python tools/reproduce.py TARGET --dry-run --hours
--tflops NUMBER`.

## Data

"""


@cache
def hours_of(config: str) -> float:
    """Estimate the hours of a training on eight cards."""
    return training_hours(cli.load_config(str(ROOT / config)), GPUS)


def trainings(steps: list[Step]) -> list[dict[str, str]]:
    """Rows of the table of trainings."""
    models, rows = read_models(), []
    for step in steps:
        if step.config is not None:
            name = Path(step.config).stem
            settings = {card: ' '.join(models[name].settings[card]) or '-' for card in CARDS}
            rows.append(
                dict(
                    config=f'`{name}`',
                    hours=f'{hours_of(step.config):.1f}',
                    makes=f'`{step.makes}`',
                    **{f'card_{card}': setting for card, setting in settings.items()},
                )
            )
    return rows


def accuracies(rows: list[Row]) -> str:
    """The table that tells where the accuracies of a target are."""
    cells = [
        dict(
            row=row.name,
            report=None if row.report is None else f'{row.report:.2f}',
            tta=None if row.report_tta is None else f'{row.report_tta:.2f}',
            files=', '.join(f'`{path}`' for path in row.files.values()) or "only the server's",
        )
        for row in rows
    ]
    columns = [('row', 'row'), ('report', 'report')]
    columns += [('tta', 'report, TTA')] if any(row.report_tta for row in rows) else []
    return format_markdown(cells, [*columns, ('files', 'accuracy here')])


def main() -> None:
    """Write the page."""
    chain = Chain(lambda name: f'configs/{find_by_basename(name + ".py")}', data=DATA)
    parts = [INTRODUCTION, f'    {shlex.join(DATA.command)}\n']
    told = {DATA.makes}
    for target, function in TARGETS.items():
        rows = add_target(chain, target)
        steps = [step for path, step in chain.steps.items() if path not in told]
        told |= {step.makes for step in steps}
        title = (function.__doc__ or '').strip().rstrip('.')
        parts.append(f'\n## {target}: {title[0].lower()}{title[1:]}\n\n')
        if rows:
            parts.append(accuracies(rows) + '\n')
        parts += [f'    {shlex.join(step.command)}\n' for step in steps]
    every = trainings(list(chain.steps.values()))
    columns = [('config', 'training'), ('hours', 'hours on 8 GPUs'), ('makes', 'makes')]
    columns += [(f'card_{card}', f'to fit {card} GB') for card in CARDS]
    total = sum(hours_of(step.config) for step in chain.steps.values() if step.config)
    parts.append('\n## Trainings\n\nA training that several tables need is run once.\n\n')
    parts.append(format_markdown(every, columns))
    parts.append(f'\nTogether about {total:,.0f} hours, on 8 GPUs.\n')
    atomic_write(PAGE, ''.join(parts))
    print(f'wrote {PAGE}')


if __name__ == '__main__':
    cli.run(main)
