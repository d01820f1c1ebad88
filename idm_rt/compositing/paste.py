"""Moves a masked correction from its crop into the frame's pixels and adds it there. Exact outside the mask."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass

import cv2
import numpy as np

from idm_rt.compositing.mask import FloatMap
from idm_rt.geometry import compose, invert_affine, scale_of, transform_points
from idm_rt.types import FloatArray, RgbImage

Box = tuple[int, int, int, int]  # x0, y0, x1, y1 in frame px, end exclusive


@dataclass(frozen=True, slots=True)
class Patch:
    """What one face adds to a rectangle of the frame."""

    box: Box
    delta: FloatMap  # (h, w, 3) 8-bit steps, already times its weight
    crop_weight: FloatMap  # 0..1, in a window of the crop: moved into the frame only where faces overlap
    to_crop: FloatArray  # (2, 3): frame px -> px of that window


def support(mask: FloatMap, size: int) -> Box:
    """Smallest rectangle of an enlarged mask, in px of the (size, size) crop, that holds all that is not 0.

    One cell more on each side: an enlarged mask reaches half a cell beyond its last non-zero one.
    """
    rows, columns = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
    if not len(rows):
        return 0, 0, 0, 0
    edges = np.array([columns[0] - 1, rows[0] - 1, columns[-1] + 2, rows[-1] + 2]) * (size / mask.shape[0])
    x0, y0, x1, y1 = (int(v) for v in np.clip([*np.floor(edges[:2]), *np.ceil(edges[2:])], 0, size))
    return x0, y0, x1, y1


def frame_box(window: Box, frame_to_crop: FloatArray, frame_hw: tuple[int, int]) -> Box:
    """Smallest frame rectangle that covers a rectangle of the crop; clipped to the frame, maybe empty."""
    left, top, right, bottom = window
    corners = np.array([[left, top], [right, top], [right, bottom], [left, bottom]], dtype=np.float64) - 0.5
    points = transform_points(invert_affine(frame_to_crop), corners)
    limits = np.array([frame_hw[1], frame_hw[0]])
    low = np.clip(np.floor(points.min(axis=0)) - 1, 0, limits).astype(int)
    high = np.clip(np.ceil(points.max(axis=0)) + 2, 0, limits).astype(int)
    return int(low[0]), int(low[1]), int(max(low[0], high[0])), int(max(low[1], high[1]))


def warp_to_frame(values: FloatMap, to_crop: FloatArray, box: Box) -> FloatMap:
    """Pull (h, w[, C]) values into the frame rectangle ``box``; 0 outside of them. ``to_crop`` maps frame px to theirs.

    A face smaller than its crop is averaged down first, or crop detail above the frame's Nyquist rate would alias
    into shimmer. Enlarging is bilinear: cubic rings at the strong edges that a correction has around eyes and teeth
    and costs twice as much.
    """
    matrix = invert_affine(to_crop)
    factor = min(max(1, int(scale_of(to_crop))), *values.shape[:2])
    if factor > 1:
        height, width = values.shape[0] // factor, values.shape[1] // factor
        whole = np.ascontiguousarray(values[: height * factor, : width * factor])
        values = cv2.resize(whole, (width, height), interpolation=cv2.INTER_AREA)
        middle = 0.5 * factor - 0.5
        matrix = compose(matrix, np.array([[factor, 0.0, middle], [0.0, factor, middle]]))
    x0, y0, x1, y1 = box
    matrix = matrix - np.array([[0.0, 0.0, x0], [0.0, 0.0, y0]])
    return cv2.warpAffine(values, matrix, (x1 - x0, y1 - y0), flags=cv2.INTER_LINEAR, borderMode=cv2.BORDER_CONSTANT)


def settle_overlaps(patches: Sequence[Patch]) -> list[FloatMap]:
    """The patches' deltas such that no pixel is corrected twice; independent of their order up to float rounding.

    Where masks overlap each pixel gets the sum of the deltas divided by max(1, sum of the weights): a mean of the
    faces' opinions. The earlier patch gets it, the later one is cleared there, so that each pixel is rounded once.
    """
    deltas = [patch.delta for patch in patches]
    weights: dict[int, FloatMap] = {}
    for i, j in itertools.combinations(range(len(patches)), 2):
        inner = _intersection(patches[i].box, patches[j].box)
        if inner is None:
            continue
        for k in (i, j):
            if k not in weights:  # copied once, before the first change
                weights[k] = warp_to_frame(patches[k].crop_weight, patches[k].to_crop, patches[k].box)
                deltas[k] = deltas[k].copy()
        mine, other = _window(inner, patches[i].box), _window(inner, patches[j].box)
        for values in (deltas, weights):
            values[i][mine] += values[j][other]
            values[j][other] = 0.0
    for k, weight in weights.items():
        deltas[k] /= np.maximum(weight, np.float32(1.0))[..., None]
    return deltas


def add_patches(image: RgbImage, boxes: Sequence[Box], deltas: Sequence[FloatMap]) -> RgbImage:
    """A copy of the image plus each delta in its box, in whole steps (OpenCV decides ties), held within 0..255."""
    out = image.copy()
    for (x0, y0, x1, y1), delta in zip(boxes, deltas, strict=True):
        out[y0:y1, x0:x1] = cv2.add(out[y0:y1, x0:x1], delta, dtype=cv2.CV_8U)
    return out


def _intersection(a: Box, b: Box) -> Box | None:
    x0, y0, x1, y1 = max(a[0], b[0]), max(a[1], b[1]), min(a[2], b[2]), min(a[3], b[3])
    return (x0, y0, x1, y1) if x0 < x1 and y0 < y1 else None


def _window(inner: Box, outer: Box) -> tuple[slice, slice]:
    """The rows and columns of ``inner`` within an array that covers ``outer``."""
    return slice(inner[1] - outer[1], inner[3] - outer[1]), slice(inner[0] - outer[0], inner[2] - outer[0])
