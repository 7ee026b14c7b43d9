"""A known hidden factor for experiments: gray images in ten colors."""

from __future__ import annotations

import numpy as np
from mmcv.transforms import BaseTransform
from mmpretrain.registry import TRANSFORMS

from ipirm_mm.errors import UserError
from ipirm_mm.options import check_whole
from ipirm_mm.utils.seeding import seed_words_of

from ..labels import one_class

# Ten tints, RGB. Blue is on in five of them, red in six and green in six, so that each channel is
# a two-valued factor on its own.
PALETTE = np.array(
    [
        (255, 40, 40),  # red
        (40, 255, 40),  # green
        (40, 40, 255),  # blue
        (255, 255, 40),  # yellow
        (255, 40, 255),  # magenta
        (40, 255, 255),  # cyan
        (255, 150, 40),  # orange
        (150, 255, 40),  # lime
        (150, 40, 255),  # violet
        (255, 255, 255),  # white
    ],
    dtype=np.uint8,
)


def tint(images: np.ndarray, factors: np.ndarray) -> np.ndarray:
    """Color gray images.

    Args:
        images: Gray images, ``(N, H, W)`` uint8.
        factors: Index into :data:`PALETTE` of each image, ``(N,)``.

    Returns:
        RGB images, ``(N, H, W, 3)`` uint8.
    """
    colors = PALETTE[np.asarray(factors)][:, None, None, :].astype(np.uint16)
    return ((images[..., None] * colors + 127) // 255).astype(np.uint8)


# What each gray value becomes in each color, BGR as everywhere in OpenMMLab: (color, 3, gray).
_GRAYS = np.arange(256, dtype=np.uint8)
_SHADES = np.stack([tint(_GRAYS[:, None, None], np.full(256, n)) for n in range(len(PALETTE))])
_SHADES = np.ascontiguousarray(_SHADES[:, :, 0, 0, ::-1].transpose(0, 2, 1))


@TRANSFORMS.register_module()
class TintByFactor(BaseTransform):
    """Color a gray image by a hidden factor: a second semantic, which is known.

    The factor of an image depends only on ``seed`` and its ``sample_idx``. It is uniform, or with
    probability ``follow`` it is the class: ``(gt_label + shift) % num_factors``. An image without
    an index, as MMPretrain's ``FeatureExtractor`` passes it, is not colored.

    **Required keys:** ``img``, ``sample_idx``; ``gt_label`` if ``follow > 0``.

    **Modified keys:** ``img``. **Added keys:** ``factor`` (int).

    Args:
        num_factors: Number of colors, 2 to 10. Defaults to 10.
        follow: Probability that the color follows the class, 0 to 1. Defaults to 0.
        shift: Offset of the color that follows a class. Defaults to 0.
        seed: Seed of the factors. Defaults to 0.

    Raises:
        UserError: If an option is out of range.
    """

    def __init__(
        self, num_factors: int = 10, follow: float = 0.0, shift: int = 0, seed: int = 0
    ) -> None:
        check_whole('TintByFactor.num_factors', num_factors, 2, len(PALETTE))
        if not 0 <= follow <= 1:
            raise UserError(f'TintByFactor.follow must be from 0 to 1, but is {follow}')
        check_whole('TintByFactor.seed', seed, 0)
        self.num_factors = num_factors
        self.follow = follow
        self.shift = shift
        self.seed = seed

    def factor_of(self, sample_idx: int, gt_label: int | None = None) -> int:
        """Draw the factor of an image.

        Args:
            sample_idx: Index of the image in its data set.
            gt_label: Class of the image; needed if ``follow`` is positive. Defaults to None.

        Returns:
            The factor, from 0 to ``num_factors - 1``.

        Raises:
            UserError: If ``follow`` is positive and there is no class.
        """
        words = seed_words_of((self.seed,), sample_idx)[:2].tolist()
        if self.follow and words[0] < self.follow * 2.0**32:
            if gt_label is None:
                raise UserError(
                    'TintByFactor.follow needs gt_label, one class per image, which the data set '
                    'lacks'
                )
            return (int(gt_label) + self.shift) % self.num_factors
        return words[1] % self.num_factors

    def transform(self, results: dict) -> dict:
        """Color ``results['img']``, which becomes BGR, ``(H, W, 3)`` uint8."""
        if 'sample_idx' not in results:
            return results
        label = one_class(results.get('gt_label'))
        factor = self.factor_of(int(results['sample_idx']), label)
        image = results['img']
        gray = image if image.ndim == 2 else image[..., 0]
        # Each channel lies in one piece of memory, as PyTorch wants it: packing need not copy.
        results['img'] = _SHADES[factor].take(gray, axis=1).transpose(1, 2, 0)
        results['factor'] = factor
        return results

    def __repr__(self) -> str:
        return (
            f'{type(self).__name__}(num_factors={self.num_factors}, follow={self.follow}, '
            f'shift={self.shift}, seed={self.seed})'
        )
