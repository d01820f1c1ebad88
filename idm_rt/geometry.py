"""The one definition of how a face is aligned, shared by run time and training. Pure functions.

Pixel centres lie at integer coordinates (OpenCV's convention), so a crop that is resized by k maps
x to (x + 0.5) * k - 0.5.
"""

from __future__ import annotations

import cv2
import numpy as np

from idm_rt.types import FloatArray, RgbImage

CROP_SIZE = 256

# Where the five points lie in the aligned crop, as fractions of its side. The distance between the eyes is
# 0.30 of the side (FFHQ's crop: 0.25), so the crop spends 1.44 times FFHQ's pixels on the face and still holds
# chin, ears and hair line. Nose and mouth are the medians over the training photos; see docs/adr.
ALIGN_TEMPLATE = np.array([[0.35, 0.42], [0.65, 0.42], [0.50, 0.585], [0.365, 0.724], [0.635, 0.724]], dtype=np.float64)


def similarity_from_points(source_xy: FloatArray, target_xy: FloatArray) -> FloatArray:
    """Least-squares similarity (rotation, uniform scale, shift) that maps source to target points.

    Umeyama, "Least-squares estimation of transformation parameters between two point patterns", TPAMI 1991,
    without reflection. In two dimensions it has this closed form.

    Args:
        source_xy: (K, 2) with K >= 2 and at least two distinct points.
        target_xy: (K, 2).

    Returns:
        (2, 3) float64 affine matrix.

    Raises:
        ValueError: shapes that differ, or source points that all coincide.
    """
    source = np.asarray(source_xy, dtype=np.float64)
    target = np.asarray(target_xy, dtype=np.float64)
    if source.shape != target.shape or source.ndim != 2 or source.shape[1] != 2 or len(source) < 2:
        raise ValueError(f"expected two equal (K, 2) arrays with K >= 2, found {source.shape} and {target.shape}")
    source_mean, target_mean = source.mean(axis=0), target.mean(axis=0)
    ds, dt = source - source_mean, target - target_mean
    variance = float((ds * ds).sum())
    if not variance > 1e-12:
        raise ValueError("the source points coincide: no similarity is defined")
    a = float((ds * dt).sum()) / variance  # scale * cos(angle)
    b = float((ds[:, 0] * dt[:, 1] - ds[:, 1] * dt[:, 0]).sum()) / variance  # scale * sin(angle)
    linear = np.array([[a, -b], [b, a]])
    return np.column_stack([linear, target_mean - linear @ source_mean])


def align_matrix(points_xy: FloatArray, size: int = CROP_SIZE) -> FloatArray:
    """Frame-to-crop matrix (2, 3) for five points (5, 2) in frame px; see ``landmarks.five_points``."""
    return similarity_from_points(points_xy, ALIGN_TEMPLATE * size - 0.5)


def invert_affine(matrix: FloatArray) -> FloatArray:
    """Inverse of a (2, 3) affine matrix.

    Raises:
        ValueError: the matrix is singular.
    """
    linear = np.asarray(matrix[:, :2], dtype=np.float64)
    if abs(np.linalg.det(linear)) < 1e-12:
        raise ValueError("the affine matrix is singular")
    inverse = np.linalg.inv(linear)
    return np.column_stack([inverse, -inverse @ matrix[:, 2]])


def transform_points(matrix: FloatArray, points_xy: FloatArray) -> FloatArray:
    """Apply a (2, 3) affine matrix to (K, 2) points; K may be 0."""
    return points_xy @ matrix[:, :2].T + matrix[:, 2]


def scale_of(matrix: FloatArray) -> float:
    """Target px per source px of a similarity (2, 3)."""
    return float(np.sqrt(abs(np.linalg.det(matrix[:, :2]))))


def crop_face(image: RgbImage, frame_to_crop: FloatArray, size: int = CROP_SIZE) -> RgbImage:
    """Cut an aligned (size, size, 3) face out of a frame; what lies outside the frame is mirrored in.

    A face larger than the crop is first averaged down (INTER_AREA over its own region only), so that detail above
    the crop's Nyquist rate does not alias into shimmer. The cost follows the face, not the frame.
    """
    scale = scale_of(frame_to_crop)
    factor = int(1.0 / scale) if scale < 1.0 else 1
    if factor < 2:
        return warp(image, frame_to_crop, size)
    x0, y0, x1, y1 = crop_region(frame_to_crop, size, image.shape[:2], margin=2 * factor)
    if x1 - x0 < factor or y1 - y0 < factor:
        return warp(image, frame_to_crop, size)
    width, height = (x1 - x0) // factor, (y1 - y0) // factor
    region = image[y0 : y0 + height * factor, x0 : x0 + width * factor]
    small = cv2.resize(region, (width, height), interpolation=cv2.INTER_AREA)
    # small px -> frame px: x = (x_small + 0.5) * factor - 0.5 + x0
    small_to_frame = np.array([[factor, 0, 0.5 * factor - 0.5 + x0], [0, factor, 0.5 * factor - 0.5 + y0]], float)
    return warp(small, compose(frame_to_crop, small_to_frame), size)


def warp(image: np.ndarray, matrix: FloatArray, size: int) -> np.ndarray:
    """Bilinear (size, size) warp of an image by a (2, 3) source-to-target matrix, mirrored at the border."""
    return cv2.warpAffine(image, matrix, (size, size), flags=cv2.INTER_LINEAR, borderMode=cv2.BORDER_REFLECT_101)


def compose(outer: FloatArray, inner: FloatArray) -> FloatArray:
    """The (2, 3) matrix that applies ``inner`` first and ``outer`` second."""
    linear = outer[:, :2] @ inner[:, :2]
    return np.column_stack([linear, outer[:, :2] @ inner[:, 2] + outer[:, 2]])


def crop_region(
    frame_to_crop: FloatArray, size: int, frame_hw: tuple[int, int], margin: int = 1
) -> tuple[int, int, int, int]:
    """Smallest frame rectangle (x0, y0, x1, y1), end exclusive, that covers the crop; clipped, maybe empty."""
    corners = np.array([[-0.5, -0.5], [size - 0.5, -0.5], [size - 0.5, size - 0.5], [-0.5, size - 0.5]])
    points = transform_points(invert_affine(frame_to_crop), corners)
    height, width = frame_hw
    low = np.floor(points.min(axis=0)).astype(int) - margin
    high = np.ceil(points.max(axis=0)).astype(int) + margin + 1
    x0, y0 = max(0, int(low[0])), max(0, int(low[1]))
    return x0, y0, max(x0, min(width, int(high[0]))), max(y0, min(height, int(high[1])))
