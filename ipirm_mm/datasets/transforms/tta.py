"""Test-time augmentation: flips and crops of an image, and pipelines that make them."""

from __future__ import annotations

import copy

from mmcv.transforms import BaseTransform, TestTimeAug
from mmpretrain.registry import TRANSFORMS

from ipirm_mm.errors import UserError

#: Number of views of each choice of test-time augmentation.
CROPS = dict(center=1, flip=2, five=5, ten=10)
_TRANSFORMS = dict(flip='HorizontalFlip', five='FiveCrop', ten='TenCrop')
#: Positions of the five crops, in torchvision's order.
POSITIONS = ('top_left', 'top_right', 'bottom_left', 'bottom_right', 'center')
_FLIPS = [dict(type='RandomFlip', prob=0.0), dict(type='RandomFlip', prob=1.0)]


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
        if position not in POSITIONS:
            raise UserError(
                f'PositionCrop.position must be one of {POSITIONS}, but is {position!r}'
            )
        height, width = (crop_size, crop_size) if isinstance(crop_size, int) else crop_size
        if height < 1 or width < 1:
            raise UserError(f'PositionCrop.crop_size must be positive, but is {crop_size}')
        self.height, self.width, self.position = height, width, position

    def transform(self, results: dict) -> dict:
        """Crop ``results['img']``."""
        image = results['img']
        free = image.shape[0] - self.height, image.shape[1] - self.width
        if min(free) < 0:
            raise UserError(
                f'a crop of {self.height}x{self.width} does not fit the image of '
                f'{image.shape[0]}x{image.shape[1]} ({results.get("img_path", "no path")}): lower '
                'crop_size, or resize to a larger size'
            )
        if self.position == 'center':  # torchvision rounds halves to even, as Python does
            top, left = (round(space / 2) for space in free)
        else:
            top = free[0] if 'bottom' in self.position else 0
            left = free[1] if 'right' in self.position else 0
        crop = image[top : top + self.height, left : left + self.width]
        # A crop of a mirrored image has a negative stride, which torch does not accept.
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
    """

    def __init__(self, crop_size: int | tuple[int, int], transforms: list) -> None:
        super().__init__([_crops(crop_size), *([step] for step in transforms)])


@TRANSFORMS.register_module()
class TenCrop(TestTimeAug):
    """Ten views: five crops of the image, then of its mirror image (report: TenCrop).

    Args:
        crop_size: Height and width of the crops in pixels; one number for squares.
        transforms: Configs of the transforms that follow for each view; the last one packs it.
    """

    def __init__(self, crop_size: int | tuple[int, int], transforms: list) -> None:
        super().__init__([list(_FLIPS), _crops(crop_size), *([step] for step in transforms)])


def tta_pipeline(
    pipeline: list,
    crops: str,
    crop_size: int | tuple[int, int] | None = None,
    resize: int | None = None,
) -> list:
    """Turn a test pipeline into one of several views.

    Args:
        pipeline: Configs of the test pipeline; the last transform packs the image.
        crops: The views: ``'center'`` (the center crop), ``'flip'`` (the center crop and its
            mirror image), ``'five'`` or ``'ten'`` crops, which replace the ``CenterCrop``.
        crop_size: Height and width of the crops in pixels. Defaults to None: that of the
            ``CenterCrop``. Without a ``CenterCrop``, flips are of the whole image.
        resize: Length in pixels to which the shorter side is resized first. Defaults to None: that
            of the ``ResizeEdge``.

    Returns:
        The new pipeline; the given one is not changed.

    Raises:
        UserError: If ``crops`` is unknown, there is no crop size, or there is no ``ResizeEdge`` to
            change.
    """
    if crops not in CROPS:
        raise UserError(f'crops must be one of {tuple(CROPS)}, but is {crops!r}')
    *steps, pack = copy.deepcopy(pipeline)
    if resize is not None:
        edges = [step for step in steps if _kind(step) == 'ResizeEdge']
        if len(edges) != 1:
            raise UserError(
                f'the test pipeline has {len(edges)} ResizeEdge, of which one is needed to resize '
                f'to {resize}: leave the size out, or write a tta_pipeline in the config'
            )
        edges[0]['scale'] = resize
    centers = [step for step in steps if _kind(step) == 'CenterCrop']
    size = crop_size or (centers[-1]['crop_size'] if centers else None)
    if crops in ('five', 'ten'):
        if size is None:
            raise UserError(
                f'{crops} crops need a size, but the test pipeline has no CenterCrop to take it '
                'from: give the size of the crops'
            )
        steps = [step for step in steps if step not in centers]
        return [*steps, dict(type=_TRANSFORMS[crops], crop_size=size, transforms=[pack])]
    if crop_size is not None:
        steps = [step for step in steps if step not in centers]
        steps.append(dict(type='CenterCrop', crop_size=crop_size))
    if crops == 'flip':
        return [*steps, dict(type=_TRANSFORMS[crops], transforms=[pack])]
    return [*steps, dict(type='TestTimeAug', transforms=[[pack]])]


def _kind(step: dict) -> str:
    """Name of a transform, without a scope such as ``mmpretrain.``."""
    kind = step['type']
    return kind.rsplit('.', 1)[-1] if isinstance(kind, str) else kind.__name__
