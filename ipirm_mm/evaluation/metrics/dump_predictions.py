"""The metric that writes a file of predictions."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from mmengine.evaluator import DumpResults
from torch import Tensor

from ipirm_mm.errors import UserError


class DumpPredictions(DumpResults):
    """MMEngine's ``DumpResults``, with files of the right size.

    Fault: on CPUs the scores of an image are a row of its batch's scores, and pickle writes the
    whole batch with each row, so that files grow with the batch size.

    Args:
        out_file_path: File to write, ``.pkl``.
        **kwargs: Other arguments of ``DumpResults``.

    Raises:
        UserError: If the file has another ending.
    """

    def __init__(self, out_file_path: str, **kwargs: Any) -> None:
        if not out_file_path.endswith(('.pkl', '.pickle')):
            raise UserError(
                f'predictions are written as .pkl, but --out is {out_file_path}: give another '
                'name, or --out-item metrics'
            )
        super().__init__(out_file_path, **kwargs)

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
