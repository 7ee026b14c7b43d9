"""Loading of image files, with errors that name the file."""

from __future__ import annotations

import io

import cv2
import mmcv
import numpy as np
from mmcv.transforms import LoadImageFromFile
from mmengine import fileio
from mmpretrain.registry import TRANSFORMS
from PIL import Image, ImageOps

from ipirm_mm.errors import UserError

from ..image_format import is_truncated


@TRANSFORMS.register_module()
class LoadImage(LoadImageFromFile):
    """MMCV's ``LoadImageFromFile``, which names a file that cannot be read.

    Fault bridged: MMCV's own reports "failed to load image", or an OpenCV message without a file
    name, from within a worker. It also accepts a truncated file and fills the missing part with
    gray; what follows the end of a whole image, such as the video of a motion photo, is ignored.
    What OpenCV cannot read, such as a GIF, is read by Pillow. Gray images, palettes, transparency
    (dropped), CMYK and 16 bits become 8-bit BGR, and the rotation in EXIF is applied. The
    arguments are those of ``LoadImageFromFile``.
    """

    def transform(self, results: dict) -> dict | None:
        """Load ``results['img_path']``.

        Returns:
            ``results`` with ``img``, ``img_shape`` and ``ori_shape``; None if the file cannot be
            read and ``ignore_empty`` is set.

        Raises:
            UserError: If the file is missing, truncated or not an image.
        """
        try:
            image = self._read(results['img_path'])
        except UserError:
            if self.ignore_empty:
                return None
            raise
        results['img'] = image.astype(np.float32) if self.to_float32 else image
        results['img_shape'] = results['ori_shape'] = image.shape[:2]
        return results

    def _read(self, path: str) -> np.ndarray:
        try:
            content = fileio.get(path, backend_args=self.backend_args)
        except (OSError, ValueError) as error:  # a missing file, no permission
            raise UserError(_unreadable(path, f' ({error})')) from error
        if is_truncated(content):
            raise UserError(_unreadable(path, f' (it is truncated after {len(content):,} bytes)'))
        try:
            image = None if _is_lab(content) else self._decode(content)
        except (OSError, ValueError, SyntaxError, cv2.error) as error:
            # OpenCV's text does not help; that of another backend, or an unknown backend, does.
            reason = f' ({error})' if isinstance(error, (OSError, ValueError)) else ''
            raise UserError(_unreadable(path, reason)) from error
        if image is None and self.color_type == 'color':
            image = _read_with_pillow(content)
        if image is None:
            raise UserError(_unreadable(path))
        return image

    def _decode(self, content: bytes) -> np.ndarray | None:
        return mmcv.imfrombytes(content, self.color_type, backend=self.imdecode_backend)


def _is_lab(content: bytes) -> bool:
    """Whether a file is a TIFF in the color space Lab, which OpenCV takes for RGB."""
    if content[:4] not in (b'II*\0', b'MM\0*'):
        return False
    try:
        with Image.open(io.BytesIO(content)) as image:
            return image.mode == 'LAB'
    except (OSError, ValueError, SyntaxError):
        return False


def _read_with_pillow(content: bytes) -> np.ndarray | None:
    """Read what OpenCV cannot, such as a GIF, as BGR; None if Pillow cannot either."""
    try:
        with Image.open(io.BytesIO(content)) as image:
            if image.mode in ('F', 'I'):  # numbers, of which Pillow cuts off all above 255
                return None
            return np.asarray(ImageOps.exif_transpose(image).convert('RGB'))[..., ::-1].copy()
    except (OSError, ValueError, SyntaxError):
        return None


def _unreadable(path: str, reason: str = '') -> str:
    return (
        f'{path} cannot be read as an image{reason}: replace the file, or take it out of the '
        'data set'
    )
