"""Pictures of the output: fitted to its size, side by side, or a placeholder. Pure functions on RGB arrays."""

from __future__ import annotations

from functools import lru_cache

import cv2
import numpy as np

from idm_rt.media.compare import side_by_side
from idm_rt.types import RgbImage

_BACKGROUND = (38, 42, 48)  # RGB
_TITLE, _TEXT = (235, 238, 242), (170, 178, 188)
_FONT = cv2.FONT_HERSHEY_DUPLEX
_LABELS = ("before", "after")


def fit(image: RgbImage, size: tuple[int, int]) -> RgbImage:
    """The picture in another size, its shape kept, black bars where it does not fill; the same array if it fits.

    Args:
        image: (H, W, 3) uint8 RGB.
        size: (width, height) px.
    """
    width, height = size
    if image.shape[:2] == (height, width):
        return image
    scale = min(width / image.shape[1], height / image.shape[0])
    inner = max(1, round(image.shape[1] * scale)), max(1, round(image.shape[0] * scale))
    interpolation = cv2.INTER_AREA if scale < 1.0 else cv2.INTER_LINEAR
    scaled = cv2.resize(image, inner, interpolation=interpolation)
    if inner == size:
        return np.asarray(scaled, dtype=np.uint8)
    canvas = np.zeros((height, width, 3), np.uint8)
    left, top = (width - inner[0]) // 2, (height - inner[1]) // 2
    canvas[top : top + inner[1], left : left + inner[0]] = scaled
    return canvas


def compared(before: RgbImage, after: RgbImage) -> RgbImage:
    """Both pictures whole, side by side, in the size of one; (H, W, 3) uint8 RGB."""
    height, width = before.shape[:2]
    return fit(side_by_side(before, after, _LABELS), (width, height))


def mirrored(image: RgbImage) -> RgbImage:
    """As in a mirror, for the user's own eyes; a contiguous copy."""
    return np.ascontiguousarray(image[:, ::-1])


@lru_cache(maxsize=8)
def placeholder(size: tuple[int, int], title: str, text: str) -> RgbImage:
    """A calm picture with two lines of ASCII text in the middle. Cached, so read-only.

    Args:
        size: (width, height) px; in a tiny one the text is left out.
    """
    width, height = size
    canvas = np.full((height, width, 3), _BACKGROUND, np.uint8)
    if min(size) >= 64:
        _centred(canvas, title, 0.46, 0.075, _TITLE)
        _centred(canvas, text, 0.58, 0.042, _TEXT)
    canvas.flags.writeable = False
    return canvas


def _centred(canvas: np.ndarray, text: str, at: float, size: float, colour: tuple[int, int, int]) -> None:
    """Write a line with its base at ``at`` of the height, its capitals ``size`` of the height or what fits."""
    height, width = canvas.shape[:2]
    (unit_width, unit_height), _ = cv2.getTextSize(text, _FONT, 1.0, 1)
    scale = min(size * height / max(1, unit_height), 0.9 * width / max(1, unit_width))
    thickness = max(1, round(1.2 * scale))
    (text_width, _), _ = cv2.getTextSize(text, _FONT, scale, thickness)
    origin = (width - text_width) // 2, round(at * height)
    cv2.putText(canvas, text, origin, _FONT, scale, colour, thickness, cv2.LINE_AA)
