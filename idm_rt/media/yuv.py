"""Between RGB pictures and the planar YUV frames that video codecs store. Pure functions on numpy planes.

Decoding goes through swscale with its accurate flags, whose result was measured to lie within half a level of the
exact formula. Its default flags are faster and lose about one level of brightness per conversion; its way back to
full-range YUV shifts chroma by half a level. So the way back is done here: a changed picture is written as the
original planes plus the converted *difference*, which leaves every untouched pixel as the camera gave it.
"""

from __future__ import annotations

import cv2
import numpy as np
from numpy.typing import NDArray

from idm_rt.types import FloatArray, RgbImage

Plane = NDArray[np.uint8]

# Kr, Kb by the matrix coefficient numbers of ITU-T H.273, table 4; whatever is not listed is taken as BT.601, which
# is also what swscale decodes it with.
_LUMA_WEIGHTS = {1: (0.2126, 0.0722), 4: (0.30, 0.11), 7: (0.212, 0.087), 9: (0.2627, 0.0593), 10: (0.2627, 0.0593)}
_BT601 = (0.299, 0.114)
_CHROMA_TAPS = np.array([0.25, 0.5, 0.25], np.float32)  # low-pass before every second column is dropped
_ROW_TAPS = np.array([0.5, 0.5], np.float32)


def rgb_to_yuv_matrix(matrix_coefficients: int, full_range: bool) -> tuple[FloatArray, FloatArray]:
    """The linear part (3, 3) and offset (3,) that map RGB 0..255 to 8-bit Y, Cb, Cr (ITU-T H.273, 8.3)."""
    kr, kb = _LUMA_WEIGHTS.get(matrix_coefficients, _BT601)
    luma = np.array([kr, 1.0 - kr - kb, kb])
    blue = (np.array([0.0, 0.0, 1.0]) - luma) / (2.0 * (1.0 - kb))
    red = (np.array([1.0, 0.0, 0.0]) - luma) / (2.0 * (1.0 - kr))
    luma_gain, chroma_gain = (1.0, 1.0) if full_range else (219.0 / 255.0, 224.0 / 255.0)
    linear = np.stack([luma * luma_gain, blue * chroma_gain, red * chroma_gain])
    return linear, np.array([0.0 if full_range else 16.0, 128.0, 128.0])


def rgb_to_planes(image: RgbImage, matrix_coefficients: int, full_range: bool, subsampled: bool) -> list[Plane]:
    """Y, Cb and Cr planes of a whole picture.

    Args:
        image: (H, W, 3).
        subsampled: 4:2:0 (chroma planes of half the size, rounded up) instead of 4:4:4.
    """
    linear, offset = rgb_to_yuv_matrix(matrix_coefficients, full_range)
    return [_to_uint8(plane) for plane in _planes(image, np.column_stack([linear, offset]), subsampled)]


def add_difference(
    planes: list[Plane],
    before: RgbImage,
    after: RgbImage,
    matrix_coefficients: int,
    full_range: bool,
) -> None:
    """Add what changed from ``before`` to ``after`` to the Y, Cb and Cr planes they were decoded from, in place.

    The cost follows the changed rectangle, not the picture. Planes are 4:2:0 or 4:4:4; ``before`` and ``after`` are
    (H, W, 3) in the orientation of the planes.
    """
    box = changed_box(before, after)
    if box is None:
        return
    subsampled = planes[1].shape != planes[0].shape
    x0, y0, x1, y1 = box
    if subsampled:  # whole chroma samples, and their neighbours, which share the outermost changed pixels
        height, width = planes[0].shape
        x0, y0, x1, y1 = max(0, x0 - 2) & ~1, y0 & ~1, min(width, x1 + 2 + x1 % 2), min(height, y1 + y1 % 2)
    difference = np.subtract(after[y0:y1, x0:x1], before[y0:y1, x0:x1], dtype=np.float32)
    linear, _ = rgb_to_yuv_matrix(matrix_coefficients, full_range)
    for plane, change in zip(planes, _planes(difference, linear, subsampled), strict=True):
        left, top = (x0, y0) if plane.shape == planes[0].shape else (x0 // 2, y0 // 2)
        target = plane[top : top + change.shape[0], left : left + change.shape[1]]
        target[:] = _to_uint8(target + change)


def changed_box(before: RgbImage, after: RgbImage) -> tuple[int, int, int, int] | None:
    """Smallest rectangle (x0, y0, x1, y1), end exclusive, outside which both pictures are equal; None if they are."""
    if before is after:
        return None
    height, width = before.shape[:2]
    flat = cv2.absdiff(before, after).reshape(height, width * 3)
    rows = np.flatnonzero(flat.max(axis=1))
    if rows.size == 0:
        return None
    y0, y1 = int(rows[0]), int(rows[-1]) + 1
    x = np.flatnonzero(flat[y0:y1].max(axis=0)) // 3
    return int(x[0]), y0, int(x[-1]) + 1, y1


def _planes(rgb: np.ndarray, matrix: FloatArray, subsampled: bool) -> list[np.ndarray]:
    """Apply a (3, 3) or (3, 4) matrix to (H, W, 3) uint8 or float32; chroma comes at half the size if asked.

    Chroma samples lie on the even columns and between two rows (ITU-T H.264, figure E-1, type 0, the default, and what
    swscale decodes): averaging 2x2 pixels instead would move all colours by half a pixel.
    """
    rgb = np.ascontiguousarray(rgb)
    luma = cv2.transform(rgb, matrix[:1])
    if subsampled:
        centre = (1, 0)  # one pixel to the left and right, the row and the one below
        rgb = cv2.sepFilter2D(rgb, cv2.CV_32F, _CHROMA_TAPS, _ROW_TAPS, anchor=centre, borderType=cv2.BORDER_REPLICATE)
        rgb = np.ascontiguousarray(rgb[::2, ::2])
    chroma = cv2.transform(rgb, matrix[1:])
    return [luma.reshape(luma.shape[:2]), chroma[..., 0], chroma[..., 1]]


def _to_uint8(plane: np.ndarray) -> Plane:
    if plane.dtype == np.uint8:
        return plane
    return np.clip(np.rint(plane), 0, 255).astype(np.uint8)
