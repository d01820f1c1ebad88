"""Rectangles of a frame that are looked at, and boxes in them. Pure functions, no pixels of their own."""

from __future__ import annotations

import math
from dataclasses import dataclass

import cv2
import numpy as np

from idm_rt.types import FloatArray, RgbImage

# Smallest face, as a fraction of the longer side of what the detector is shown, that it finds reliably. Measured on
# 25 pasted faces per size: all of them at 15.6 %, 16 of 25 at 11.7 %, none at 9.4 %.
DETECTABLE_FRACTION = 0.15
_TILE_OVERLAP = 0.35  # of the tile: a face that only this tile size can find is at most 0.30 of it
_TILE_OVERHANG = 0.15  # of the tile: half of the largest face that only this tile size can find
_MIN_SIDE = 8  # px of the frame that a window must show
_MAX_SIDE = 384  # px: twice a window of this size is averaged down; the mesh net looks at 256 px of it


@dataclass(frozen=True, slots=True)
class Window:
    """A rectangle in whole px of a frame, end exclusive; may reach outside the frame."""

    x0: int
    y0: int
    x1: int
    y1: int

    @property
    def longer_side(self) -> int:
        """px."""
        return max(self.x1 - self.x0, self.y1 - self.y0)


@dataclass(frozen=True, slots=True)
class Cutout:
    """The pixels of a window, perhaps made smaller, and the way back to the frame."""

    image: RgbImage  # (H, W, 3)
    x0: int  # frame px of the outer corner of the first pixel
    y0: int
    factor: int  # frame px per pixel

    def to_frame(self, points: FloatArray) -> FloatArray:
        """Points (K, 2) in px of the cut-out -> px of the frame."""
        return (points + 0.5) * self.factor - 0.5 + np.array([self.x0, self.y0], dtype=np.float64)

    def from_frame(self, points: FloatArray) -> FloatArray:
        """Points (K, 2) in px of the frame -> px of the cut-out."""
        return (points + 0.5 - np.array([self.x0, self.y0], dtype=np.float64)) / self.factor - 0.5


def window_around(box_xyxy: FloatArray, margin: float) -> Window:
    """Square around a box, its side the box's larger side times ``1 + 2 * margin``."""
    x0, y0, x1, y1 = (float(value) for value in box_xyxy)
    half = (0.5 + margin) * max(x1 - x0, y1 - y0)
    left, top, side = round((x0 + x1) / 2 - half), round((y0 + y1) / 2 - half), math.ceil(2 * half)
    return Window(left, top, left + side, top + side)


def cut(image: RgbImage, window: Window, *, exact: bool = True) -> Cutout | None:
    """The window's pixels; None if it shows next to nothing of the frame.

    What lies outside the frame repeats the border pixels: with it the detector finds faces down to half of them
    visible, with the bare or a black border it loses them at two thirds.

    Args:
        image: (H, W, 3) frame.
        window: where to cut.
        exact: average large windows down (a face's detail must not alias into jitter); False takes every n-th
            pixel, which is enough for the detector.
    """
    height, width = image.shape[:2]
    x0, y0, x1, y1 = max(0, window.x0), max(0, window.y0), min(width, window.x1), min(height, window.y1)
    if x1 - x0 < _MIN_SIDE or y1 - y0 < _MIN_SIDE:
        return None
    factor = max(1, window.longer_side // _MAX_SIDE)
    part = _shrink(image[y0:y1, x0:x1], factor, exact)
    left, top = (x0 - window.x0) // factor, (y0 - window.y0) // factor
    right, bottom = (window.x1 - x1) // factor, (window.y1 - y1) // factor
    if left or top or right or bottom:
        part = cv2.copyMakeBorder(part, top, bottom, left, right, cv2.BORDER_REPLICATE).astype(np.uint8, copy=False)
    return Cutout(part, x0 - left * factor, y0 - top * factor, factor)


def _shrink(part: RgbImage, factor: int, exact: bool) -> RgbImage:
    if factor == 1:
        return part
    if not exact:
        return part[::factor, ::factor]
    height, width = part.shape[0] // factor, part.shape[1] // factor
    if height < 1 or width < 1:
        return part[::factor, ::factor]
    whole = part[: height * factor, : width * factor]
    return cv2.resize(whole, (width, height), interpolation=cv2.INTER_AREA).astype(np.uint8, copy=False)


def search_windows(frame_hw: tuple[int, int], min_face_px: float) -> list[Window]:
    """The whole frame, the frame with a border, then ever smaller tiles, until ``min_face_px`` can be found.

    The tiles are square, overlap, and overhang the frame, for faces that are partly outside.
    1280x720 and 40 px: 63 windows (longer sides 1280, 1920, then tiles of 759, 450 and 267).
    """
    height, width = frame_hw
    longer = max(height, width)
    border = longer // 4
    windows = [Window(0, 0, width, height), Window(-border, -border, width + border, height + border)]
    last = max(min_face_px, _MIN_SIDE) / DETECTABLE_FRACTION
    levels = max(0, math.ceil(math.log2(max(longer, 1) / last)))  # each at least half of the one before
    for level in range(1, levels + 1):
        windows += _tiles(width, height, math.ceil(longer * (last / longer) ** (level / levels)))
    return windows


def _tiles(width: int, height: int, side: int) -> list[Window]:
    return [Window(x, y, x + side, y + side) for y in _tile_starts(height, side) for x in _tile_starts(width, side)]


def _tile_starts(length: int, side: int) -> list[int]:
    """Even steps from one overhanging tile to the other; a tile longer than the frame is centred on it."""
    overhang = round(_TILE_OVERHANG * side)
    free = length + 2 * overhang - side
    if free <= 0:
        return [(length - side) // 2]
    count = 1 + math.ceil(free / (side * (1.0 - _TILE_OVERLAP)))
    return [round(index * free / (count - 1)) - overhang for index in range(count)]


def area(box_xyxy: FloatArray) -> float:
    """px squared; 0 for an empty box."""
    return float(max(0.0, box_xyxy[2] - box_xyxy[0]) * max(0.0, box_xyxy[3] - box_xyxy[1]))


def larger_side(box_xyxy: FloatArray) -> float:
    """px."""
    return float(max(box_xyxy[2] - box_xyxy[0], box_xyxy[3] - box_xyxy[1]))


def intersection(a_xyxy: FloatArray, b_xyxy: FloatArray) -> float:
    """Common area of two boxes, px squared."""
    low, high = np.maximum(a_xyxy[:2], b_xyxy[:2]), np.minimum(a_xyxy[2:], b_xyxy[2:])
    return area(np.concatenate([low, high]))


def overlap_of_smaller(a_xyxy: FloatArray, b_xyxy: FloatArray) -> float:
    """Common area over the smaller box's area, 0..1; 1 = one lies inside the other."""
    smaller = min(area(a_xyxy), area(b_xyxy))
    return intersection(a_xyxy, b_xyxy) / smaller if smaller > 0 else 0.0


def distance_in_sizes(a_xyxy: FloatArray, b_xyxy: FloatArray) -> float:
    """How unlike two boxes are: distance of their centres in box sizes, plus the log of their size ratio."""
    size_a, size_b = max(larger_side(a_xyxy), 1e-6), max(larger_side(b_xyxy), 1e-6)
    centres = (a_xyxy[:2] + a_xyxy[2:] - b_xyxy[:2] - b_xyxy[2:]) / 2.0
    return float(np.hypot(*centres)) / math.sqrt(size_a * size_b) + abs(math.log(size_a / size_b))


def drop_nested(boxes: list[FloatArray], max_overlap: float) -> list[int]:
    """Indices of the boxes that stay, in order, after the smaller of any two that overlap too much is dropped."""
    kept: list[int] = []
    for index in sorted(range(len(boxes)), key=lambda i: -area(boxes[i])):
        if all(overlap_of_smaller(boxes[index], boxes[other]) <= max_overlap for other in kept):
            kept.append(index)
    return sorted(kept)
