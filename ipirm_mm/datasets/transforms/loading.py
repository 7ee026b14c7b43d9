"""Loading of image files, with errors that name the file."""

from __future__ import annotations

import cv2
import mmcv
import numpy as np
from mmcv.transforms import LoadImageFromFile
from mmengine import fileio
from mmpretrain.registry import TRANSFORMS

from ipirm_mm.errors import UserError


@TRANSFORMS.register_module()
class LoadImage(LoadImageFromFile):
    """MMCV's ``LoadImageFromFile``, which names a file that cannot be read.

    Fault bridged: MMCV's own reports "failed to load image", or an OpenCV message without a file
    name, from within a worker. It also accepts a truncated JPEG and fills the missing part with
    gray. Gray images, palettes, transparency (dropped), CMYK and 16 bits become 8-bit BGR, and the
    rotation in EXIF is applied. The arguments are those of ``LoadImageFromFile``.
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
            image = mmcv.imfrombytes(content, self.color_type, backend=self.imdecode_backend)
        except (OSError, ValueError, cv2.error) as error:
            # The system's reason helps (missing file, no permission, unknown backend); OpenCV's
            # text does not.
            reason = f' ({error})' if isinstance(error, (OSError, ValueError)) else ''
            raise UserError(_unreadable(path, reason)) from error
        # After the last start of a scan, a whole JPEG has an end-of-image marker.
        if content[:2] == b'\xff\xd8' and content.rfind(b'\xff\xd9') < content.rfind(b'\xff\xda'):
            raise UserError(_unreadable(path, f' (it is truncated after {len(content):,} bytes)'))
        if image is None:
            raise UserError(_unreadable(path))
        return image


def _unreadable(path: str, reason: str = '') -> str:
    return (
        f'{path} cannot be read as an image{reason}: replace the file, or take it out of the '
        'data set'
    )
