"""Views for test-time augmentation: flips and crops, as MMCV's ``TestTimeAug``."""

from __future__ import annotations

from mmcv.transforms import BaseTransform, TestTimeAug
from mmpretrain.registry import TRANSFORMS

from ipirm_mm.errors import UserError

# In torchvision's order.
POSITIONS = ('top_left', 'top_right', 'bottom_left', 'bottom_right', 'center')
_FLIPS = [dict(type='RandomFlip', prob=0.0), dict(type='RandomFlip', prob=1.0)]


@TRANSFORMS.register_module()
class PositionCrop(BaseTransform):
    """Crop at a corner or at the centre, where torchvision's ``five_crop`` does.

    **Required keys:** ``img``.

    Args:
        crop_size: Side of the crop, or height and width.
        position: ``'top_left'``, ``'top_right'``, ``'bottom_left'``, ``'bottom_right'`` or
            ``'center'``.

    Raises:
        UserError: If an option is out of range; when called, if an image is smaller than the crop.
    """

    def __init__(self, crop_size: int | tuple[int, int], position: str) -> None:
        if position not in POSITIONS:
            raise UserError(
                f'PositionCrop.position must be one of {POSITIONS}, but is {position!r}'
            )
        height, width = (crop_size, crop_size) if isinstance(crop_size, int) else crop_size
        if height < 1 or width < 1:
            raise UserError(f'crop_size must be positive, but is {crop_size}')
        self.height, self.width, self.position = height, width, position

    def transform(self, results: dict) -> dict:
        """Crop ``results['img']``."""
        image = results['img']
        free = image.shape[0] - self.height, image.shape[1] - self.width
        if min(free) < 0:
            raise UserError(
                f'a crop of {self.height}x{self.width} does not fit the image of '
                f'{image.shape[0]}x{image.shape[1]} ({results.get("img_path", "no path")}): lower '
                'crop_size, or resize to more'
            )
        if self.position == 'center':  # torchvision rounds halves to even, as Python does
            top, left = (round(space / 2) for space in free)
        else:
            top = free[0] if 'bottom' in self.position else 0
            left = free[1] if 'right' in self.position else 0
        crop = image[top : top + self.height, left : left + self.width]
        # A crop of a mirrored image is a view of negative stride, which torch does not take.
        results['img'] = crop.copy()
        results['img_shape'] = results['img'].shape[:2]
        return results

    def __repr__(self) -> str:
        size = f'({self.height}, {self.width})'
        return f'{type(self).__name__}(crop_size={size}, position={self.position!r})'


def _crops(crop_size: int | tuple[int, int]) -> list[dict]:
    return [
        dict(type='PositionCrop', crop_size=crop_size, position=position) for position in POSITIONS
    ]


@TRANSFORMS.register_module()
class HorizontalFlip(TestTimeAug):
    """Two views: the image and its mirror image.

    Args:
        transforms: What follows for each view; the last packs it.
    """

    def __init__(self, transforms: list) -> None:
        super().__init__([list(_FLIPS), *([step] for step in transforms)])


@TRANSFORMS.register_module()
class FiveCrop(TestTimeAug):
    """Five views: the corners and the centre, in torchvision's order.

    .. code-block:: python

        tta_pipeline = [
            dict(type='LoadImage'),
            dict(type='ResizeEdge', scale=256, edge='short'),
            dict(type='FiveCrop', crop_size=224, transforms=[dict(type='PackInputs')]),
        ]

    Args:
        crop_size: Side of the crops, or height and width.
        transforms: What follows for each view; the last packs it.
    """

    def __init__(self, crop_size: int | tuple[int, int], transforms: list) -> None:
        super().__init__([_crops(crop_size), *([step] for step in transforms)])


@TRANSFORMS.register_module()
class TenCrop(TestTimeAug):
    """Ten views: the five crops of the image, then those of its mirror image.

    Args:
        crop_size: Side of the crops, or height and width.
        transforms: What follows for each view; the last packs it.
    """

    def __init__(self, crop_size: int | tuple[int, int], transforms: list) -> None:
        super().__init__([list(_FLIPS), _crops(crop_size), *([step] for step in transforms)])
