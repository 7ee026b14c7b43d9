"""Images of a data set as a person would see them."""

from __future__ import annotations

from typing import Any

import numpy as np
from mmengine.dataset import Compose


class SampleImages:
    """The images of a data set as RGB arrays, before they are augmented.

    Args:
        dataset: Data set of MMEngine. Its pipeline is run up to the transform that makes views
            (such as ``MultiView``) or packs the inputs.
    """

    def __init__(self, dataset: Any) -> None:
        self.dataset = dataset
        transforms = []
        for transform in dataset.pipeline.transforms:
            if hasattr(transform, 'pipelines') or type(transform).__name__ == 'PackInputs':
                break
            transforms.append(transform)
        self.pipeline = Compose(transforms)

    def __len__(self) -> int:
        return len(self.dataset)

    def record(self, index: int) -> dict[str, Any]:
        """The dict of an image at that point of the pipeline; ``img`` is BGR."""
        return self.pipeline(self.dataset.get_data_info(int(index)))

    def __getitem__(self, index: int) -> np.ndarray:
        """The image, ``(H, W, 3)`` uint8 RGB."""
        return self.record(index)['img'][..., ::-1].copy()  # BGR, as OpenMMLab loads
