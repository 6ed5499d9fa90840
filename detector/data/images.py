"""Read image files."""

from __future__ import annotations

from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from detector.data.image_size import Size, image_size, is_too_large


def read_image(path: str, flags: int = cv2.IMREAD_COLOR) -> tuple[NDArray[Any] | None, bool]:
    """Decode an image file, EXIF orientation applied.

    A JPEG file that ends early is decoded as far as it goes, with every version of OpenCV. A file whose header
    promises more than `MAX_PIXELS` is not decoded.

    Args:
        path: the file.
        flags: OpenCV's ``IMREAD_`` flags.

    Returns:
        The image, or None if it can't be read; and whether it is a JPEG that ends early.
    """
    try:
        data = np.fromfile(path, np.uint8)
        # cameras append data of their own behind the end marker, so it may lie a little before the end
        is_cut = data[:2].tobytes() == b"\xff\xd8" and b"\xff\xd9" not in data[-4096:].tobytes()
        if is_cut:
            data = np.concatenate([data, np.array([0xFF, 0xD9], np.uint8)])
        size = image_size(data.data)
        return (None if size is None or is_too_large(size) else cv2.imdecode(data, flags)), is_cut
    except (OSError, cv2.error):
        return None, False


def read_size(path: str) -> Size | None:
    """Return height and width as the file's header tells them, before EXIF turns the image; None if it can't."""
    try:
        return image_size(np.fromfile(path, np.uint8).data)
    except OSError:
        return None
