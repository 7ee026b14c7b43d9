"""Pipelines of several views, made from the test pipeline of a config."""

from __future__ import annotations

import copy
from typing import Any

from ipirm_mm.errors import SameCropsError, UserError
from ipirm_mm.options import check_one_of
from ipirm_mm.utils import type_name

from .tta import CROPS

_TRANSFORMS = dict(flip='HorizontalFlip', five='FiveCrop', ten='TenCrop')
# Transforms that crop the center. EfficientNet's crops a share of the image, and resizes it.
_CENTER_CROPS = ('CenterCrop', 'torchvision/CenterCrop', 'EfficientNetCenterCrop')
_RESIZES = ('ResizeEdge', 'Resize', 'torchvision/Resize')
# Transforms that make several views themselves.
_VIEWS = ('TestTimeAug', *_TRANSFORMS.values(), 'MemberViews', 'MultiView', 'SeededMultiView')
_VIEWS += ('torchvision/FiveCrop', 'torchvision/TenCrop')
# Transforms at the end that do not move pixels: views are made before them.
_PACKING = (
    'Collect',
    'ImageToTensor',
    'Normalize',
    'NumpyToPIL',
    'PILToNumpy',
    'PackInputs',
    'PackMultiTaskInputs',
    'PackWithSeed',
    'ToNumpy',
    'ToPIL',
    'ToTensor',
    'Transpose',
    'torchvision/ConvertImageDtype',
    'torchvision/Normalize',
    'torchvision/PILToTensor',
    'torchvision/ToTensor',
)
# Transforms that load an image, or give it the color of a known factor.
_LOADING = ('LoadImage', 'LoadImageFromFile', 'TintByFactor')
Size = tuple[int, int]


def tta_pipeline(
    pipeline: list,
    crops: str,
    crop_size: int | Size | None = None,
    resize: int | None = None,
) -> list:
    """Turn a test pipeline into one of several views.

    Views are made in place of the last crop of the center (``CenterCrop``, torchvision's, or
    ``EfficientNetCenterCrop``, whose crops are of the same share of the image), and otherwise
    before the transforms at the end that normalize and pack the image. Transforms that follow are
    applied to each view.

    Args:
        pipeline: Configs of the test pipeline; the last transform packs the image.
        crops: The views: ``'center'`` (the center crop), ``'flip'`` (the center crop and its
            mirror image), ``'five'`` or ``'ten'`` crops.
        crop_size: Height and width of the crops in pixels. Defaults to None: that of the crop of
            the center. If there is none, flips are of the whole image, and crops have the size
            that the pipeline resizes to (with ``resize``).
        resize: Length in pixels to which the shorter side is resized first. Defaults to None: that
            of the pipeline.

    Returns:
        The new pipeline; the given one is not changed.

    Raises:
        UserError: If ``crops`` is unknown, there is no crop size, there is no resizing to change,
            crops are larger than the image, or they would all be the same.
    """
    check_one_of('crops', crops, CROPS)
    steps = _flat(copy.deepcopy(list(pipeline)))
    made = [kind for kind in map(_kind, steps) if kind in _VIEWS]
    if made or not steps:
        raise UserError(
            f'the test pipeline {f"makes views already, by {made[0]}" if made else "is empty"}: '
            'leave the views out, or give a test pipeline of one view'
        )
    places = [place for place, step in enumerate(steps) if _kind(step) in _CENTER_CROPS]
    if not places:
        return _without_crop(steps, crops, crop_size, resize)
    place = places[-1]
    before, center, after = steps[:place], steps[place], steps[place + 1 :]
    if _kind(center) == 'EfficientNetCenterCrop':
        return _efficientnet(before, center, after, crops, crop_size, resize)
    changed = crop_size is not None or resize is not None
    size = _pair(crop_size) if crop_size is not None else _size_of(center)
    _resize(before, resize)
    _check_fit(before, size, crops)
    if crops in ('five', 'ten'):
        return [*before, _crops(crops, _short(size), after)]
    return _whole([*before, _center(before, size) if changed else center, *after], crops)


def insert_before_packing(pipeline: list, steps: list) -> list:
    """Add transforms to a pipeline after all that move pixels.

    Args:
        pipeline: Configs of a pipeline; the last transform packs the image.
        steps: Configs of the transforms to add.

    Returns:
        The new pipeline, flat; the given one is not changed.
    """
    flat = _flat(copy.deepcopy(list(pipeline)))
    end = _packing(flat)
    return [*flat[:end], *copy.deepcopy(steps), *flat[end:]]


def moves_pixels_at_random(step: Any) -> bool:
    """Whether a transform augments: it neither loads, resizes, crops the center, nor packs."""
    kind = _kind(step)
    fixed = (*_LOADING, *_CENTER_CROPS, *_RESIZES, *_PACKING)
    return kind not in fixed and not kind.endswith(('MaskGenerator', 'TwoPic'))


def _center(before: list, size: Size) -> dict:
    """A crop of the center that is never smaller than its size, as a CenterCrop may be."""
    if _fixed_size(before) or _shorter_side(before):  # the crop was found to fit
        return dict(type='CenterCrop', crop_size=_short((size[1], size[0])))
    return dict(type='PositionCrop', crop_size=size, position='center')


def _without_crop(
    steps: list, crops: str, crop_size: int | Size | None, resize: int | None
) -> list:
    """Views of a pipeline that has no crop of the center."""
    end = _packing(steps)
    before, after = steps[:end], steps[end:]
    own = _fixed_size(before)
    _resize(before, resize)
    if crop_size is None and own is not None and resize is not None:
        crop_size = own  # the network goes on seeing images of this size
    if crops in ('five', 'ten'):
        if crop_size is None:
            hint = (
                f'; larger than {own[0]}x{own[1]}, to which it resizes, the image needs a resize '
                f'(--tta-resize {round(min(own) / 0.875)})'
                if own
                else ''
            )
            raise UserError(
                f'{crops} crops need a size, but the test pipeline has no CenterCrop to take it '
                f'from: give the size of the crops (--tta-crop-size){hint}'
            )
        _check_fit(before, _pair(crop_size), crops)
        return [*before, _crops(crops, _short(_pair(crop_size)), after)]
    if crop_size is not None:
        _check_fit(before, _pair(crop_size), crops)
        before.append(_center(before, _pair(crop_size)))
    return _whole([*before, *after], crops)


def _efficientnet(
    before: list, center: dict, after: list, crops: str, crop_size: Any, resize: int | None
) -> list:
    """Views of a pipeline with EfficientNet's crop: of a share of the image, then resized."""
    size = center['crop_size'] if crop_size is None else crop_size
    if not isinstance(size, int):
        raise UserError(f'EfficientNetCenterCrop makes squares: give one number, not {size}')
    padding = center.get('crop_padding', 32) if resize is None else resize - size
    if padding < 0:
        raise UserError(
            f'a crop of {size}x{size} does not fit the image of {resize} pixels: lower the size '
            'of the crops, or resize to a larger size'
        )
    if not padding and crops in ('five', 'ten'):
        raise SameCropsError(_same(crops, size, size + padding))
    center.update(crop_size=size, crop_padding=padding)
    if crops in ('five', 'ten'):
        crop = {**center, 'type': 'EfficientNetPositionCrop'}
        return [*before, {**_crops(crops, size, after), 'crop': crop}]
    return _whole([*before, center, *after], crops)


def _whole(steps: list, crops: str) -> list:
    """The view of a pipeline, or that view and its mirror image."""
    end = _packing(steps)
    if crops == 'flip':
        return [*steps[:end], dict(type=_TRANSFORMS[crops], transforms=steps[end:])]
    return [*steps[:end], dict(type='TestTimeAug', transforms=[[step] for step in steps[end:]])]


def _crops(crops: str, size: int | Size, after: list) -> dict:
    return dict(type=_TRANSFORMS[crops], crop_size=size, transforms=after)


def _flat(steps: Any) -> list:
    """The transforms of a pipeline whose parts may be lists or ``Compose``."""
    flat: list = []
    for step in steps:
        if isinstance(step, (list, tuple)):
            flat += _flat(step)
        elif _kind(step) == 'Compose':
            flat += _flat(step['transforms'])
        else:
            flat.append(step)
    return flat


def _kind(step: Any) -> str:
    """Name of a transform, without a scope such as ``mmpretrain.``."""
    return type_name(step['type'] if isinstance(step, dict) else type(step))


def _packing(steps: list) -> int:
    """Where the transforms at the end begin that do not move pixels; at least the last one."""
    end = len(steps) - 1
    while end > 0 and _kind(steps[end - 1]) in _PACKING:
        end -= 1
    return end


def _pair(size: Any) -> Size:
    """Height and width."""
    height, width = (size, size) if isinstance(size, int) else size
    return height, width


def _short(size: Size) -> int | Size:
    return size[0] if size[0] == size[1] else size


def _size_of(center: dict) -> Size:
    """Height and width of the crops of a transform."""
    if _kind(center).startswith('torchvision/'):
        size = center['size']
        return _pair(size if isinstance(size, int) or len(size) == 2 else size[0])
    width, height = _pair(center['crop_size'])  # MMCV's order
    return height, width


def _fixed_size(steps: list) -> Size | None:
    """Height and width to which a pipeline resizes every image; None if they depend on it."""
    resizes = [step for step in steps if _kind(step) in _RESIZES]
    if not resizes:
        return None
    step = resizes[-1]
    if _kind(step) == 'Resize' and not step.get('keep_ratio') and step.get('scale'):
        width, height = _pair(step['scale'])
        return height, width
    if _kind(step) == 'torchvision/Resize' and not isinstance(step['size'], int):
        return _pair(step['size']) if len(step['size']) == 2 else None
    return None


def _shorter_side(steps: list) -> int | None:
    """Length to which a pipeline resizes the shorter side of every image, if it does."""
    resizes = [step for step in steps if _kind(step) in _RESIZES]
    if not resizes:
        return None
    step = resizes[-1]
    if _kind(step) == 'ResizeEdge' and step.get('edge', 'short') == 'short':
        return step['scale']
    if _kind(step) == 'torchvision/Resize' and _fixed_size(steps) is None:
        return step['size'] if isinstance(step['size'], int) else step['size'][0]
    return None


def _resize(steps: list, resize: int | None) -> None:
    """Change the length to which the pipeline resizes the shorter side."""
    if resize is None:
        return
    edges = [step for step in steps if _kind(step) in _RESIZES]
    fixed = _fixed_size(steps)
    if len(edges) != 1 or (fixed is None and _shorter_side(steps) is None):
        raise UserError(
            f'the test pipeline has {len(edges)} ResizeEdge, of which one is needed to resize to '
            f'{resize} (of the shorter side; a Resize to a fixed size serves too): leave the size '
            'out, or write a tta_pipeline in the config'
        )
    key = 'size' if _kind(edges[0]) == 'torchvision/Resize' else 'scale'
    if fixed is None:
        edges[0][key] = resize
        return
    height, width = (round(side * resize / min(fixed)) for side in fixed)
    edges[0][key] = (height, width) if key == 'size' else (width, height)


def _check_fit(steps: list, size: Size, crops: str) -> None:
    """Refuse crops that are larger than all images, or all the same."""
    fixed, side = _fixed_size(steps), _shorter_side(steps)
    several = crops in ('five', 'ten')
    if fixed is not None and (size[0] > fixed[0] or size[1] > fixed[1]):
        raise UserError(
            f'a crop of {size[0]}x{size[1]} does not fit the image of {fixed[0]}x{fixed[1]}, to '
            'which the test pipeline resizes: lower the size of the crops, or resize to a larger '
            'size (--tta-resize)'
        )
    if side is not None and min(size) > side:
        raise UserError(
            f'a crop of {size[0]}x{size[1]} does not fit the image of {side} pixels, to which '
            'the test pipeline resizes the shorter side: lower the size of the crops, or resize '
            'to a larger size (--tta-resize)'
        )
    if several and (fixed == size or (side is not None and min(size) == side)):
        raise SameCropsError(_same(crops, min(size), side or min(size)))


def _same(crops: str, size: int, side: int) -> str:
    return (
        f'{crops} crops of {size} pixels of an image that is resized to {side} pixels would be '
        f'the same crop several times: resize to a larger size (--tta-resize '
        f'{round(size / 0.875)}), give smaller crops (--tta-crop-size), or take flips'
    )
