"""Images of a data set as a person would see them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from mmengine.dataset import Compose
from mmpretrain.datasets.transforms import PackInputs

from ipirm_mm.datasets import UniqueImages


class SampleImages:
    """The images of a data set as RGB arrays, before they are augmented.

    Args:
        dataset: Data set, with its wrappers. A pipeline is run up to the transform that makes
            views (such as ``MultiView``) or packs the inputs. If the views load the image
            themselves, the first view is run until it has.
        numbers: Numbers of the images to show. Defaults to None: all.
    """

    def __init__(self, dataset: Any, numbers: Sequence[int] | None = None) -> None:
        self.images = UniqueImages(dataset)
        self.numbers = range(len(self.images)) if numbers is None else numbers

    def __len__(self) -> int:
        return len(self.numbers)

    def info(self, index: int) -> dict[str, Any]:
        """The data set's record of an image, before the pipeline; empty if it has none."""
        dataset, inner = self.images.locate(int(self.numbers[int(index)]))
        return dataset.get_data_info(inner) if hasattr(dataset, 'get_data_info') else {}

    def record(self, index: int) -> dict[str, Any]:
        """The dict of an image at that point of the pipeline; ``img`` is BGR."""
        dataset, inner = self.images.locate(int(self.numbers[int(index)]))
        pipeline = getattr(getattr(dataset, 'pipeline', None), 'transforms', None)
        if pipeline is None or not hasattr(dataset, 'get_data_info'):
            return _unpacked(dataset[inner])
        transforms: list[Any] = []
        first_view: list[Any] = []
        for transform in pipeline:
            if hasattr(transform, 'pipelines') or isinstance(transform, PackInputs):
                views = getattr(transform, 'transforms', None) or [None]
                first_view = list(getattr(views[0], 'transforms', ()))
                break
            transforms.append(transform)
        record = Compose(transforms)(dataset.get_data_info(inner))
        for transform in first_view:
            if record is None or 'img' in record:
                break
            record = transform(record)
        return record or {}

    def __getitem__(self, index: int) -> np.ndarray:
        """The image, ``(H, W, 3)`` uint8 RGB; black if the pipeline rejects it."""
        image = self.record(index).get('img', np.zeros((1, 1, 3), np.uint8))
        return _eight_bits(_three_channels(image))[..., ::-1].copy()  # BGR, as OpenMMLab loads


def _three_channels(image: np.ndarray) -> np.ndarray:
    """An image of three channels: a gray one repeated, an alpha channel left out."""
    if image.ndim == 2:
        image = image[..., None]
    if image.shape[-1] in (3, 4):
        return image[..., :3]
    return np.repeat(image[..., :1], 3, axis=2)


def _eight_bits(image: np.ndarray) -> np.ndarray:
    """An image of values 0 to 255; stretched if it has others, or floating-point ones up to 1."""
    if image.dtype == np.uint8:
        return image
    image = image.astype(np.float64)
    least, greatest = image.min(), image.max()
    if least < 0 or greatest > 255 or greatest <= 1:
        image = (image - least) * (255 / max(greatest - least, 1e-12))
    return image.round().astype(np.uint8)


def _unpacked(data: dict[str, Any]) -> dict[str, Any]:
    """The image in a packed sample, of several views the first."""
    inputs = data['inputs']
    image = inputs[0] if isinstance(inputs, (list, tuple)) else inputs
    return dict(img=np.asarray(image).transpose(1, 2, 0))
