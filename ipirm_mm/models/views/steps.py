"""The steps of a view: transforms of MMPretrain, for a batch of images at once."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Any

import torch
from mmcv.transforms import RandomApply, RandomFlip, RandomGrayscale
from mmpretrain.datasets.transforms import (
    ColorJitter,
    GaussianBlur,
    RandomResizedCrop,
    Solarize,
)
from torch import Tensor

from ipirm_mm.datasets.transforms import TorchRandomResizedCrop
from ipirm_mm.errors import UserError

from .draws import Draws
from .image_ops import LARGEST, apply_to_axes, blur_matrix, crop_matrix, jitter_colors, to_gray


class Step(ABC):
    """A transform of a batch of images.

    Args:
        transform: The transform of MMPretrain, whose options it takes.
        prob: Probability with which it is applied to an image, times its own. Defaults to 1.
        rgb: Whether the images are RGB, not BGR. Defaults to True.
    """

    def __init__(self, transform: Any, prob: float = 1.0, rgb: bool = True) -> None:
        self.transform = transform
        self.prob = prob * float(getattr(transform, 'prob', 1.0))
        self.rgb = rgb

    def plan(self, draws: Draws, height: int, width: int) -> tuple[Tensor, ...]:
        """Draw for all images of a batch, on the CPU, what to do with each.

        Args:
            draws: The images' draws.
            height: Height of the images.
            width: Width of the images.

        Returns:
            Whether an image is transformed, ``(N,)`` bool, and its parameters, ``(N, ...)`` each.
        """
        return draws.chance(self.prob), *self.draw(draws, height, width)

    def __call__(self, images: Tensor, plan: tuple[Tensor, ...]) -> Tensor:
        """Transform the images that the plan selects.

        Args:
            images: ``(N, C, H, W)`` float, 0 to 255; may be changed in place.
            plan: What to do with each, see :meth:`plan`.

        Returns:
            The images.
        """
        chosen, *parameters = plan
        if bool(chosen.all()):
            return self.apply(images, *parameters)
        at = chosen.nonzero()[:, 0]
        if len(at):
            place = at.to(images.device, non_blocking=True)
            images[place] = self.apply(images[place], *(value[at] for value in parameters))
        return images

    def size(self, height: int, width: int) -> tuple[int, int]:
        """Height and width of the result for images of a size."""
        return height, width

    def draw(self, draws: Draws, height: int, width: int) -> tuple[Tensor, ...]:
        """Draw its parameters for images of a size, ``(N, ...)`` each."""
        return ()

    @abstractmethod
    def apply(self, images: Tensor, *parameters: Tensor) -> Tensor:
        """Apply it to all of the images."""


class Crop(Step):
    """MMPretrain's ``RandomResizedCrop``, with antialiasing (its backend ``'pillow'``)."""

    def __init__(self, transform: RandomResizedCrop, prob: float = 1.0, rgb: bool = True) -> None:
        super().__init__(transform, prob, rgb)
        if prob != 1:
            raise UserError(
                'BatchedViews crops all images or none: take the crop out of RandomApply'
            )
        #: A flip that follows, which the matrices of the crop do as well.
        self.flip: Flip | None = None

    def size(self, height: int, width: int) -> tuple[int, int]:
        """Height and width of the crops."""
        return self.transform.scale

    def draw(self, draws: Draws, height: int, width: int) -> tuple[Tensor, ...]:
        """Draw top, left, height and width, as torchvision does, and whether a flip follows."""
        crop = self.transform
        tries = crop.max_attempts
        area = draws.uniform(tries, *crop.crop_ratio_range) * (height * width)
        low, high = crop.aspect_ratio_range
        aspect = draws.uniform(tries, math.log(low), math.log(high)).exp()
        widths, heights = (area * aspect).sqrt().round(), (area / aspect).sqrt().round()
        fits = (widths > 0) & (widths <= width) & (heights > 0) & (heights <= height)
        first = fits.double().argmax(1, keepdim=True)  # the first that fits
        w, h = widths.gather(1, first)[:, 0], heights.gather(1, first)[:, 0]
        place = draws.uniform(2)
        top = (place[:, 0] * (height - h + 1)).floor()
        left = (place[:, 1] * (width - w + 1)).floor()
        # If none fits, the largest part in the middle whose aspect ratio is allowed.
        ratio = width / height
        all_w = width if ratio <= high else round(height * high)
        all_h = height if ratio >= low else round(width / low)
        none = ~fits.any(1)
        h = torch.where(none, float(all_h), h)
        w = torch.where(none, float(all_w), w)
        top = torch.where(none, float((height - all_h) // 2), top)
        left = torch.where(none, float((width - all_w) // 2), left)
        box = top, left, h, w
        return (*box, *self.flip.plan(draws, *self.transform.scale)) if self.flip else box

    def apply(self, images: Tensor, *parameters: Tensor) -> Tensor:
        """Crop and resize, and flip."""
        top, left, h, w, *flipped = (
            value.to(images.device, non_blocking=True) for value in parameters
        )
        flips = {self.flip.axis: flipped[0]} if self.flip else {}
        scale = self.transform.scale
        rows = crop_matrix(top, h, images.shape[2], scale[0], flips.get(-2))
        columns = crop_matrix(left, w, images.shape[3], scale[1], flips.get(-1))
        return apply_to_axes(images, rows, columns)


class Flip(Step):
    """MMCV's ``RandomFlip`` in one direction."""

    def apply(self, images: Tensor, *parameters: Tensor) -> Tensor:
        """Mirror the images."""
        return images.flip(self.axis)

    @property
    def axis(self) -> int:
        """The axis whose order changes: -1, the columns, or -2, the rows."""
        return -1 if self.transform.direction == 'horizontal' else -2


class Jitter(Step):
    """MMPretrain's ``ColorJitter``."""

    def draw(self, draws: Draws, height: int, width: int) -> tuple[Tensor, ...]:
        """Draw the order, the three factors, and the turn of the hue."""
        jitter = self.transform
        order = draws.order(4)
        factors = [
            draws.uniform(1, *(bounds or (1.0, 1.0)))
            for bounds in (jitter.brightness, jitter.contrast, jitter.saturation)
        ]
        hue = draws.uniform(1, *(jitter.hue or (0.0, 0.0)))[:, 0]
        return order, torch.cat(factors, 1), hue

    def apply(self, images: Tensor, *parameters: Tensor) -> Tensor:
        """Change the colors."""
        order, factors, hue = parameters
        if not self.rgb:
            images = images.flip(1)
        images = jitter_colors(images, factors, hue if self.transform.hue else None, order)
        return images if self.rgb else images.flip(1)


class Gray(Step):
    """MMCV's ``RandomGrayscale`` with ``keep_channels``."""

    def apply(self, images: Tensor, *parameters: Tensor) -> Tensor:
        """Replace each pixel by its brightness."""
        weights = self.transform.channel_weights  # of BGR
        weights = weights[::-1] if self.rgb else weights
        total = sum(weights)
        return to_gray(images, [weight / total for weight in weights]).expand_as(images).clone()


class Blur(Step):
    """MMPretrain's ``GaussianBlur``, by a Gaussian of three standard deviations to each side."""

    def __init__(self, transform: GaussianBlur, prob: float = 1.0, rgb: bool = True) -> None:
        super().__init__(transform, prob, rgb)
        if transform.radius is not None:
            self.bounds = (float(transform.radius),) * 2
        elif transform.magnitude_std == 'inf':
            low, high = sorted(map(float, transform.magnitude_range))
            self.bounds = low, high
        else:
            raise UserError(
                'BatchedViews draws the radius of GaussianBlur uniformly: set '
                f"magnitude_std='inf', but it is {transform.magnitude_std!r}"
            )

    def draw(self, draws: Draws, height: int, width: int) -> tuple[Tensor, ...]:
        """Draw the standard deviation in pixels."""
        return (draws.uniform(1, *self.bounds)[:, 0].clamp(min=1e-3),)

    def apply(self, images: Tensor, *parameters: Tensor) -> Tensor:
        """Blur rows and columns."""
        sigma = parameters[0].to(images.device, non_blocking=True)
        rows, columns = (
            blur_matrix(sigma, size, min(math.ceil(3 * self.bounds[1]), size - 1))
            for size in images.shape[2:]
        )
        return apply_to_axes(images, rows, columns)


class Invert(Step):
    """MMPretrain's ``Solarize``."""

    def apply(self, images: Tensor, *parameters: Tensor) -> Tensor:
        """Invert pixels that are not below the threshold."""
        return torch.where(images < self.transform.thr, images, LARGEST - images)


# By the class in MMPretrain or MMCV.
STEPS: dict[type, type[Step]] = {
    RandomResizedCrop: Crop,
    TorchRandomResizedCrop: Crop,
    RandomFlip: Flip,
    ColorJitter: Jitter,
    GaussianBlur: Blur,
    RandomGrayscale: Gray,
    Solarize: Invert,
}


def build_steps(transforms: Sequence[Any], rgb: bool, prob: float = 1.0) -> list[Step]:
    """Build the steps of a view from built transforms.

    Args:
        transforms: Transforms of MMPretrain or MMCV.
        rgb: Whether the images are RGB, not BGR.
        prob: Probability of all of them, that of a ``RandomApply`` around one. Defaults to 1.

    Returns:
        One step per transform; a flip after a crop is part of the crop's.

    Raises:
        UserError: If one of them, or one of its options, is not among those that work on batches.
    """
    steps: list[Step] = []
    for transform in transforms:
        kind = type(transform)
        if kind is RandomApply and prob == 1 and len(transform.transforms.transforms) == 1:
            steps += build_steps(transform.transforms.transforms, rgb, transform.prob)
        elif kind in STEPS:
            _check_options(transform)
            step = STEPS[kind](transform, prob, rgb)
            before = steps[-1] if steps else None
            if isinstance(step, Flip) and isinstance(before, Crop) and before.flip is None:
                before.flip = step
            else:
                steps.append(step)
        else:
            names = ', '.join(known.__name__ for known in STEPS)
            raise UserError(
                f'BatchedViews.transforms has {kind.__name__}, which does not work on batches; '
                f'those that do are {names}, and RandomApply of one of them: leave it in the '
                'pipeline of the data set, before PackWithSeed'
            )
    return steps


def _check_options(transform: Any) -> None:
    name = type(transform).__name__
    if isinstance(transform, RandomFlip) and (
        not isinstance(transform.prob, float)
        or transform.direction not in ('horizontal', 'vertical')
    ):
        raise UserError(
            'BatchedViews.transforms: RandomFlip takes one prob and the direction '
            f"'horizontal' or 'vertical', but has {transform.prob} and {transform.direction}"
        )
    if isinstance(transform, RandomGrayscale) and not transform.keep_channels:
        raise UserError('BatchedViews.transforms: set RandomGrayscale.keep_channels=True')
    if isinstance(transform, RandomResizedCrop) and transform.interpolation != 'bilinear':
        raise UserError(
            f"BatchedViews.transforms: {name}.interpolation must be 'bilinear', but is "
            f'{transform.interpolation!r}'
        )
