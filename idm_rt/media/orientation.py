"""The eight ways a stored picture can be turned upright (EXIF orientation, container display matrix)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True, slots=True)
class Orientation:
    """Stored to displayed: first swap rows and columns, then mirror."""

    swap: bool = False  # transpose first; the displayed width is the stored height
    flip_x: bool = False  # then mirror left and right
    flip_y: bool = False  # then mirror top and bottom

    def apply(self, image: np.ndarray) -> np.ndarray:
        """Turn a stored (H, W, ...) picture upright; returns a view."""
        if self.swap:
            image = image.swapaxes(0, 1)
        return image[:: -1 if self.flip_y else 1, :: -1 if self.flip_x else 1]

    def undo(self, image: np.ndarray) -> np.ndarray:
        """Turn an upright picture back into its stored form; returns a view."""
        image = image[:: -1 if self.flip_y else 1, :: -1 if self.flip_x else 1]
        return image.swapaxes(0, 1) if self.swap else image

    def size(self, width: int, height: int) -> tuple[int, int]:
        """(width, height) after ``apply`` (and, the swap being its own inverse, after ``undo``)."""
        return (height, width) if self.swap else (width, height)

    @property
    def rotation_deg(self) -> int:
        """Clockwise turn 0, 90, 180 or 270 that makes the picture upright (a mirroring is left out)."""
        if self.swap:
            return 90 if self.flip_x else 270
        return 180 if self.flip_y else 0


UPRIGHT = Orientation()

# Exif 2.32, tag 0x0112
EXIF_ORIENTATIONS = {
    1: UPRIGHT,
    2: Orientation(flip_x=True),
    3: Orientation(flip_x=True, flip_y=True),
    4: Orientation(flip_y=True),
    5: Orientation(swap=True),
    6: Orientation(swap=True, flip_x=True),
    7: Orientation(swap=True, flip_x=True, flip_y=True),
    8: Orientation(swap=True, flip_y=True),
}


def orientation_of_matrix(matrix: Sequence[int]) -> Orientation | None:
    """Orientation of a container display matrix (ISO/IEC 14496-12, 6.2.2), or None if it is no multiple of 90 degrees.

    Args:
        matrix: a, b, u, c, d, v, x, y, w as 16.16 (u, v, w 2.30) fixed-point integers; a stored pixel (p, q), q
            downwards, is shown at (a p + c q + x, b p + d q + y).
    """
    a, b, _, c, d = (value / 65536.0 for value in matrix[:5])
    tolerance = 0.01 * max(abs(a), abs(b), abs(c), abs(d))
    if tolerance == 0.0:
        return None
    if abs(b) <= tolerance and abs(c) <= tolerance and a and d:
        return Orientation(False, a < 0, d < 0)
    if abs(a) <= tolerance and abs(d) <= tolerance and b and c:
        return Orientation(True, c < 0, b < 0)
    return None
