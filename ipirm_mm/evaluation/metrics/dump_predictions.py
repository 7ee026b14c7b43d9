"""The metric that writes a file of predictions."""

from __future__ import annotations

import pickle
from collections.abc import Sequence
from typing import Any

from mmengine.evaluator import DumpResults
from mmengine.logging import print_log
from torch import Tensor

from ipirm_mm.errors import UserError
from ipirm_mm.models.utils import LabelRule
from ipirm_mm.utils import atomic_write, check_writable

from ..model_source import ModelSource
from ..predictions import add_names


class DumpPredictions(DumpResults):
    """MMEngine's ``DumpResults``, with files of the right size that name their classes and model.

    Fault: on CPUs the scores of an image are a row of its batch's scores, and pickle writes the
    whole batch with each row, so that files grow with the batch size.

    The file is written whole or not at all.

    Args:
        out_file_path: File to write, ``.pkl``.
        classes: Names of the classes, in the order of the scores. Defaults to None: not known.
        rule: The rule of several labels per image. Defaults to None: one label.
        source: The model that makes the predictions. Defaults to None: not known.
        **kwargs: Other arguments of ``DumpResults``.

    Raises:
        UserError: If the file has another ending.
    """

    def __init__(
        self,
        out_file_path: str,
        classes: tuple[str, ...] | None = None,
        rule: LabelRule | None = None,
        source: ModelSource | None = None,
        **kwargs: Any,
    ) -> None:
        if not out_file_path.endswith(('.pkl', '.pickle')):
            raise UserError(
                f'predictions are written as .pkl, but --out is {out_file_path}: give another '
                'name, or --out-item metrics'
            )
        check_writable(out_file_path)
        super().__init__(out_file_path, **kwargs)
        self.classes = classes
        self.rule = rule
        self.source = source

    def process(self, data_batch: Any, data_samples: Sequence[dict]) -> None:
        """Keep copies of the predictions of a batch.

        Args:
            data_batch: Not used.
            data_samples: The predictions, one ``dict`` per image.
        """
        for sample in data_samples:
            self.results.append(
                {
                    key: value.detach().cpu().clone() if isinstance(value, Tensor) else value
                    for key, value in sample.items()
                }
            )

    def compute_metrics(self, results: list) -> dict:
        """Write the file.

        Args:
            results: The predictions of all images.

        Returns:
            No metrics.
        """
        add_names(results, self.classes, self.rule, self.source)
        atomic_write(self.out_file_path, pickle.dumps(results))
        print_log(f'{len(results)} predictions are in {self.out_file_path}', logger='current')
        return {}
