"""The model card of a published classifier: Markdown with the front matter of Hugging Face."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import yaml

from ipirm_mm.errors import UserError
from ipirm_mm.version import __version__

from .controls import control_lines
from .markdown import UNKNOWN, table
from .training import Training, data_lines, distillation_lines, setting_rows, start_lines


@dataclass
class Card:
    """What a model card says.

    Attributes:
        name: Name of the published files, without ending.
        config: Path of the config, as it was given.
        checkpoint: Path or address of the checkpoint, as it was given.
        training: The training.
        num_classes: Number of classes of the head; None if it is not known.
        classes: Their names; None if they are not known.
        license: Identifier of a license; None if none is stated.
        results: Lines on its accuracy, see :func:`read_results`; None if none was given.
        hashes: SHA-256 by file name.
        needs_us: Whether the published config needs this package.
    """

    name: str
    config: str
    checkpoint: str
    training: Training
    num_classes: int | None
    classes: Sequence[str] | None
    license: str | None
    results: list[str] | None
    hashes: dict[str, str]
    needs_us: bool

    def text(self) -> str:
        """The whole card."""
        parts = [
            self._front_matter(),
            f'# {self.name}\n\nAn image classifier, published from `{self.config}` by '
            f'`tools/publish_model.py` of `ipirm_mm` {__version__}. This card is written by that '
            'program from files; what they do not say is marked as not known.',
            '## Training data\n\n' + '\n'.join(data_lines(self.training)) + '\n' + self._classes(),
            f'## Settings\n\nFrom {self.training.source}.\n\n'
            + table(setting_rows(self.training)),
            '## Where the weights start\n\n' + '\n'.join(start_lines(self.training)),
            '## Distillation\n\n' + '\n'.join(distillation_lines(self.training)),
            '## Controls\n\n' + '\n'.join(control_lines(self.training)),
            '## Accuracy\n\n' + '\n'.join(self.results or self._no_results()),
            '## Use\n\n' + self._use(),
            '## License\n\n' + (self.license or 'None is stated.'),
            '## Files\n\n'
            + table(
                [(f'`{name}`', f'`{value}`') for name, value in self.hashes.items()], 'SHA-256'
            ),
        ]
        return '\n\n'.join(parts) + '\n'

    def _front_matter(self) -> str:
        tags = ['image-classification', 'mmpretrain', 'ipirm_mm']
        if self.training.get('model.distill_losses'):
            tags.append('knowledge-distillation')
        matter: dict[str, Any] = dict(library_name='mmpretrain')
        if self.license:
            matter = dict(license=self.license, **matter)
        matter.update(pipeline_tag='image-classification', tags=tags)
        if self.results:
            matter['metrics'] = ['accuracy']
        return '---\n' + yaml.safe_dump(matter, sort_keys=False) + '---'

    def _classes(self) -> str:
        number = UNKNOWN if self.num_classes is None else str(self.num_classes)
        lines = [f'- classes: {number}']
        if self.classes:
            names = [str(name) for name in self.classes]
            shown = ', '.join(names[:20]) + (', ...' if len(names) > 20 else '')
            lines.append(f'- names of the classes: {shown}')
        else:
            lines.append(f'- names of the classes: {UNKNOWN}')
        return '\n'.join(lines)

    def _no_results(self) -> list[str]:
        return [
            'It was not given. These commands give it, with a confidence interval:',
            '',
            f'    python tools/test.py {self.config} {self.checkpoint} --out predictions.pkl',
            f'    python tools/publish_model.py {self.config} {self.checkpoint} '
            '--results predictions.pkl',
        ]

    def _use(self) -> str:
        need = (
            'The config needs `ipirm_mm` for its data or model.'
            if self.needs_us
            else 'The config needs MMPretrain only.'
        )
        return (
            f'{need}\n\n```python\nfrom mmpretrain import get_model\n\n'
            f"model = get_model('{self.name}.py', pretrained='{self.name}.pth')\n```"
        )


def check_license(name: str | None) -> None:
    """Check that a license is an identifier, as the front matter of a card takes it.

    Args:
        name: The license; None if none is stated.

    Raises:
        UserError: If it is not one.
    """
    if name is not None and not re.fullmatch(r'[A-Za-z0-9][\w.+-]*', name):
        raise UserError(
            f'--license is {name!r}, but must be an identifier without blanks, such as '
            'apache-2.0, mit, cc-by-nc-4.0 or other (those that Hugging Face lists)'
        )
