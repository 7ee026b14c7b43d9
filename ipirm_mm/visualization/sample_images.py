"""Images of a data set as a person would see them."""

from __future__ import annotations

from typing import Any

import numpy as np
from mmengine.dataset import Compose


class SampleImages:
    """The images of a data set as RGB arrays, before they are augmented.

    Args:
        dataset: Data set of MMEngine. Its pipeline is run up to the transform that makes views
            (such as ``MultiView``) or packs the inputs. If the views load the image themselves,
            the first view is run until it has.
    """

    def __init__(self, dataset: Any) -> None:
        self.dataset = dataset
        transforms = []
        self.view: list[Any] = []
        for transform in dataset.pipeline.transforms:
            if hasattr(transform, 'pipelines') or type(transform).__name__ == 'PackInputs':
                views = getattr(transform, 'transforms', None) or [None]
                self.view = list(getattr(views[0], 'transforms', ()))
                break
            transforms.append(transform)
        self.pipeline = Compose(transforms)

    def __len__(self) -> int:
        return len(self.dataset)

    def record(self, index: int) -> dict[str, Any]:
        """The dict of an image at that point of the pipeline; ``img`` is BGR."""
        record = self.pipeline(self.dataset.get_data_info(int(index)))
        for transform in self.view:
            if 'img' in record:
                break
            record = transform(record)
        return record

    def __getitem__(self, index: int) -> np.ndarray:
        """The image, ``(H, W, 3)`` uint8 RGB."""
        return self.record(index)['img'][..., ::-1].copy()  # BGR, as OpenMMLab loads
