"""Test-time augmentation: flips and crops of an image."""

from __future__ import annotations

from typing import Any

import mmcv
from mmcv.transforms import BaseTransform, TestTimeAug
from mmpretrain.datasets import EfficientNetCenterCrop
from mmpretrain.registry import TRANSFORMS
from PIL import Image, ImageOps
from torch import Tensor

from ipirm_mm.errors import UserError
from ipirm_mm.options import check_one_of

#: Number of views of each choice of test-time augmentation.
CROPS = dict(center=1, flip=2, five=5, ten=10)
#: Positions of the five crops, in torchvision's order.
POSITIONS = ('top_left', 'top_right', 'bottom_left', 'bottom_right', 'center')
_FLIPS = [dict(type='MirrorImage', mirror=False), dict(type='MirrorImage', mirror=True)]
Picture = Any  # an array (H, W, C), a PIL image, or a tensor (C, H, W)


def _size(image: Picture) -> tuple[int, int]:
    """Height and width."""
    if isinstance(image, Image.Image):
        return image.height, image.width
    return tuple(image.shape[-2:] if isinstance(image, Tensor) else image.shape[:2])


def _cut(image: Picture, top: int, left: int, height: int, width: int) -> Picture:
    if isinstance(image, Image.Image):
        return image.crop((left, top, left + width, top + height))
    if isinstance(image, Tensor):
        return image[..., top : top + height, left : left + width]
    # A crop of a mirrored image has a negative stride, which torch does not accept.
    return image[top : top + height, left : left + width].copy()


@TRANSFORMS.register_module()
class MirrorImage(BaseTransform):
    """The image or its mirror image, whether it is an array, a PIL image or a tensor.

    **Required keys:** ``img``.

    **Modified keys:** ``img``, ``flip``, ``flip_direction``.

    Args:
        mirror: Whether to mirror it.
    """

    def __init__(self, mirror: bool) -> None:
        self.mirror = mirror

    def transform(self, results: dict) -> dict:
        """Mirror ``results['img']``."""
        results['flip'] = self.mirror
        results['flip_direction'] = 'horizontal' if self.mirror else None
        if self.mirror:
            image = results['img']
            if isinstance(image, Image.Image):
                results['img'] = ImageOps.mirror(image)
            elif isinstance(image, Tensor):
                results['img'] = image.flip(-1)
            else:
                results['img'] = image[:, ::-1].copy()
        return results

    def __repr__(self) -> str:
        return f'{type(self).__name__}(mirror={self.mirror})'


def _corner(position: str, free: tuple[float, float]) -> tuple[int, int]:
    """Top and left of a crop, of the space that it leaves free."""
    if position == 'center':  # torchvision rounds halves to even, as Python does
        return round(free[0] / 2), round(free[1] / 2)
    top = free[0] if 'bottom' in position else 0
    left = free[1] if 'right' in position else 0
    return int(top), int(left)


@TRANSFORMS.register_module()
class PositionCrop(BaseTransform):
    """Crop at a corner or at the center, at the positions of torchvision's ``five_crop``.

    **Required keys:** ``img``.

    **Modified keys:** ``img``, ``img_shape``.

    Args:
        crop_size: Height and width of the crop in pixels; one number for a square.
        position: ``'top_left'``, ``'top_right'``, ``'bottom_left'``, ``'bottom_right'`` or
            ``'center'``.

    Raises:
        UserError: If an option is out of range. When called, if the image is smaller than the
            crop.
    """

    def __init__(self, crop_size: int | tuple[int, int], position: str) -> None:
        check_one_of('PositionCrop.position', position, POSITIONS)
        height, width = (crop_size, crop_size) if isinstance(crop_size, int) else crop_size
        if height < 1 or width < 1:
            raise UserError(f'PositionCrop.crop_size must be positive, but is {crop_size}')
        self.height, self.width, self.position = height, width, position

    def transform(self, results: dict) -> dict:
        """Crop ``results['img']``."""
        image = results['img']
        size = _size(image)
        free = size[0] - self.height, size[1] - self.width
        if min(free) < 0:
            raise UserError(
                f'a crop of {self.height}x{self.width} does not fit the image of '
                f'{size[0]}x{size[1]} ({results.get("img_path", "no path")}): lower '
                'crop_size, or resize to a larger size'
            )
        top, left = _corner(self.position, free)
        results['img'] = _cut(image, top, left, self.height, self.width)
        results['img_shape'] = self.height, self.width
        return results

    def __repr__(self) -> str:
        size = f'({self.height}, {self.width})'
        return f'{type(self).__name__}(crop_size={size}, position={self.position!r})'


@TRANSFORMS.register_module()
class EfficientNetPositionCrop(EfficientNetCenterCrop):
    """MMPretrain's ``EfficientNetCenterCrop`` at a corner or at the center.

    The crop is of the same share of the image's shorter side, and is resized to ``crop_size``. The
    center crop is that of ``EfficientNetCenterCrop``.

    Args:
        position: As for :class:`PositionCrop`.
        **kwargs: Arguments of ``EfficientNetCenterCrop``.

    Raises:
        UserError: If the position is unknown.
    """

    def __init__(self, position: str, **kwargs: Any) -> None:
        check_one_of('EfficientNetPositionCrop.position', position, POSITIONS)
        super().__init__(**kwargs)
        self.position = position

    def transform(self, results: dict) -> dict:
        """Crop and resize ``results['img']``."""
        image = results['img']
        height, width = image.shape[:2]
        share = self.crop_size / (self.crop_size + self.crop_padding)
        size = share * min(height, width)
        side = max(int(size), 1)
        # The center is that of the exact size, as in EfficientNetCenterCrop.
        free = (size,) * 2 if self.position == 'center' else (side,) * 2
        top, left = _corner(self.position, (height - free[0], width - free[1]))
        results['img'] = mmcv.imresize(
            _cut(image, top, left, side, side),
            (self.crop_size, self.crop_size),
            interpolation=self.interpolation,
            backend=self.backend,
        )
        results['img_shape'] = results['img'].shape
        return results


def _crops(crop_size: int | tuple[int, int], crop: dict | None) -> list[dict]:
    crop = crop or dict(type='PositionCrop', crop_size=crop_size)
    return [dict(crop, position=position) for position in POSITIONS]


@TRANSFORMS.register_module()
class HorizontalFlip(TestTimeAug):
    """Two views: the image and its mirror image (report: HorizontalFlip).

    Args:
        transforms: Configs of the transforms that follow for each view; the last one packs it.
    """

    def __init__(self, transforms: list) -> None:
        super().__init__([list(_FLIPS), *([step] for step in transforms)])


@TRANSFORMS.register_module()
class FiveCrop(TestTimeAug):
    """Five views: the corners and the center, in torchvision's order (report: FiveCrop).

    .. code-block:: python

        tta_pipeline = [
            dict(type='LoadImage'),
            dict(type='ResizeEdge', scale=256, edge='short'),
            dict(type='FiveCrop', crop_size=224, transforms=[dict(type='PackInputs')]),
        ]

    Args:
        crop_size: Height and width of the crops in pixels; one number for squares.
        transforms: Configs of the transforms that follow for each view; the last one packs it.
        crop: Config of another crop than :class:`PositionCrop` of this size, without its position,
            such as ``EfficientNetPositionCrop``. Defaults to None.
    """

    def __init__(
        self, crop_size: int | tuple[int, int], transforms: list, crop: dict | None = None
    ) -> None:
        super().__init__([_crops(crop_size, crop), *([step] for step in transforms)])


@TRANSFORMS.register_module()
class TenCrop(TestTimeAug):
    """Ten views: five crops of the image, then of its mirror image (report: TenCrop).

    Args:
        crop_size: Height and width of the crops in pixels; one number for squares.
        transforms: Configs of the transforms that follow for each view; the last one packs it.
        crop: Config of another crop than :class:`PositionCrop` of this size, without its position,
            such as ``EfficientNetPositionCrop``. Defaults to None.
    """

    def __init__(
        self, crop_size: int | tuple[int, int], transforms: list, crop: dict | None = None
    ) -> None:
        super().__init__([list(_FLIPS), _crops(crop_size, crop), *([step] for step in transforms)])
