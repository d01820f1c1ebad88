"""Before and after in one picture. Pure functions on RGB arrays."""

from __future__ import annotations

from collections.abc import Sequence

import cv2
import numpy as np

from idm_rt.types import RgbImage, check_rgb

LINE_PX = 4  # even, so that two even pictures side by side stay even
_LINE = 255
_BACKGROUND = 255


def side_by_side_size(width: int, height: int) -> tuple[int, int]:
    """(width, height) px of what ``side_by_side`` makes of two pictures of this size."""
    return 2 * width + LINE_PX, height


def side_by_side(before: RgbImage, after: RgbImage, labels: tuple[str, str] | None = None) -> RgbImage:
    """Both pictures next to each other, a thin white line between; (H, 2 W + LINE_PX, 3).

    Args:
        labels: short ASCII texts for the upper left corners, e.g. ("before", "after"); None = no text.

    Raises:
        ValueError: the pictures differ in size.
    """
    if check_rgb(before, "before").shape != check_rgb(after, "after").shape:
        raise ValueError(f"before is {before.shape}, after is {after.shape}; expected equal sizes")
    height, width = before.shape[:2]
    canvas = np.full((height, 2 * width + LINE_PX, 3), _LINE, np.uint8)
    canvas[:, :width], canvas[:, width + LINE_PX :] = before, after
    if labels is not None:
        _label(canvas[:, :width], labels[0])
        _label(canvas[:, width + LINE_PX :], labels[1])
    return canvas


def contact_sheet(
    pairs: Sequence[tuple[RgbImage, RgbImage]],
    *,
    box_xyxy: tuple[float, float, float, float] | None = None,
    rows: int = 3,
    row_height: int = 480,
    labels: tuple[str, str] | None = ("before", "after"),
) -> RgbImage:
    """A before/after picture: some pairs, evenly spread over all that are given, one under the other.

    Args:
        pairs: (before, after) of equal size; at least one.
        box_xyxy: px rectangle to show of each picture (e.g. the face with some room); None = all of it.
        rows: at most so many pairs are shown.
        row_height: px height of a row; a smaller picture is enlarged by whole pixels' interpolation, a larger reduced.

    Raises:
        ValueError: no pair.
    """
    if not pairs:
        raise ValueError("a contact sheet needs at least one pair of pictures")
    shown = [_row(*pairs[index], box_xyxy, row_height, labels) for index in spread(len(pairs), rows)]
    width = max(row.shape[1] for row in shown)
    gaps = [np.full((LINE_PX, width, 3), _BACKGROUND, np.uint8)] * len(shown)
    padded = [np.pad(r, ((0, 0), (0, width - r.shape[1]), (0, 0)), constant_values=_BACKGROUND) for r in shown]
    return np.vstack([part for pair in zip(padded, gaps, strict=True) for part in pair][:-1])


def spread(count: int, wanted: int) -> list[int]:
    """Indices of ``wanted`` items (or fewer) at the middles of equal parts of ``count`` items; no index twice."""
    wanted = max(1, min(count, wanted))
    return [(2 * part + 1) * count // (2 * wanted) for part in range(wanted)] if count else []


def enclosing_box(
    boxes_xyxy: Sequence[Sequence[float]], frame_hw: tuple[int, int], margin: float = 0.5
) -> tuple[float, float, float, float] | None:
    """Rectangle around face boxes, widened by ``margin`` of its size on each side and clipped to the frame.

    None without boxes. Meant for ``contact_sheet``.
    """
    if not len(boxes_xyxy):
        return None
    boxes = np.asarray(boxes_xyxy, dtype=float)
    x0, y0 = boxes[:, :2].min(axis=0)
    x1, y1 = boxes[:, 2:].max(axis=0)
    dx, dy = margin * (x1 - x0), margin * (y1 - y0)
    height, width = frame_hw
    return max(0.0, x0 - dx), max(0.0, y0 - dy), min(float(width), x1 + dx), min(float(height), y1 + dy)


def _row(
    before: RgbImage,
    after: RgbImage,
    box: tuple[float, float, float, float] | None,
    height: int,
    labels: tuple[str, str] | None,
) -> RgbImage:
    return side_by_side(_shown(before, box, height), _shown(after, box, height), labels)


def _shown(image: RgbImage, box: tuple[float, float, float, float] | None, height: int) -> RgbImage:
    """The part of a picture inside the box, ``height`` px high."""
    if box is not None:
        x0, y0, x1, y1 = (round(value) for value in box)
        part = image[max(0, y0) : max(0, y1), max(0, x0) : max(0, x1)]
        image = part if part.size else image
    width = max(1, round(image.shape[1] * height / image.shape[0]))
    smaller = height < image.shape[0]
    interpolation = cv2.INTER_AREA if smaller else cv2.INTER_CUBIC
    return np.asarray(cv2.resize(image, (width, height), interpolation=interpolation), dtype=np.uint8)


def _label(image: np.ndarray, text: str) -> None:
    """Write a text into the upper left corner, in place; nothing if the picture is too small to read it."""
    scale = min(image.shape[:2]) / 640.0
    if scale < 0.2:
        return
    origin = (round(14 * scale) + 2, round(34 * scale) + 4)
    patch = np.ascontiguousarray(image)
    for colour, thickness in (((0, 0, 0), round(6 * scale) + 1), ((255, 255, 255), round(2 * scale) + 1)):
        cv2.putText(patch, text, origin, cv2.FONT_HERSHEY_SIMPLEX, scale, colour, thickness, cv2.LINE_AA)
    image[:] = patch
