"""Leaves a face alone that the camera shows sharper than the crop could. Pure."""

from __future__ import annotations

import cv2
import numpy as np

from idm_rt.compositing.confidence import smooth_step
from idm_rt.geometry import scale_of
from idm_rt.landmarks import LEFT_EYE, RIGHT_EYE
from idm_rt.types import FaceCrop, FloatArray, RgbImage

_EYES = list(LEFT_EYE + RIGHT_EYE)
_CHEEKS = (50, 280)  # one landmark in the middle of each cheek: skin without features
_MAX_OVERSAMPLING = 2.0  # frame px per crop px at which detail is measured; more would cost and tell no more


def sharpness_fade(
    image: RgbImage, crop: FaceCrop, oversampling: tuple[float, float], detail: tuple[float, float]
) -> float:
    """1 for a face that is soft or fits its crop, down to 0 for a large and sharp one.

    The correction of a face that is larger than its crop holds low frequencies only. If the frame already shows detail
    above the crop's Nyquist rate the camera needs no help, and a soft layer over a sharp face can only harm.

    Args:
        image: the frame.
        crop: the face.
        oversampling: (from, to) frame px per crop px over which the safeguard sets in.
        detail: (from, to) of ``detail_above_crop`` over which the correction fades out.
    """
    ratio = 1.0 / scale_of(crop.frame_to_crop)
    onset = smooth_step(ratio, *oversampling)
    if onset == 0.0:
        return 1.0
    return 1.0 - onset * smooth_step(detail_above_crop(image, crop), *detail)


def detail_above_crop(image: RgbImage, crop: FaceCrop) -> float:
    """Frame detail around the eyes that is finer than a crop px, relative to their contrast; noise taken out.

    Median over 35 photos at 1.8 frame px per crop px: sharp 0.116, halved 0.069, x264 at a call's bit rate 0.060,
    halved with sensor noise 0.066, a quarter of the size 0.034.
    """
    landmarks = crop.track.landmarks_xy
    ratio = 1.0 / scale_of(crop.frame_to_crop)
    eyes = landmarks[_EYES]
    width = float(np.ptp(eyes[:, 0]))
    fine, contrast = _fine_detail(_cut(image, eyes.min(axis=0) - 0.15 * width, eyes.max(axis=0) + 0.15 * width), ratio)
    reach = 0.12 * width
    cheeks = [_cut(image, landmarks[k] - reach, landmarks[k] + reach) for k in _CHEEKS]
    noise = min(_fine_detail(cheek, ratio)[0] for cheek in cheeks)
    return float(np.sqrt(max(0.0, fine**2 - noise**2)) / max(contrast, 1.0))


def _cut(image: RgbImage, low_xy: FloatArray, high_xy: FloatArray) -> np.ndarray:
    height, width = image.shape[:2]
    x0, y0 = (int(v) for v in np.clip(low_xy, 0, (width, height)))
    x1, y1 = (int(v) for v in np.clip(high_xy, 0, (width, height)))
    return image[y0:y1, x0:x1]


def _fine_detail(region: np.ndarray, ratio: float) -> tuple[float, float]:
    """RMS above the crop's Nyquist rate and standard deviation, in 8-bit steps; 0, 0 for a region too small."""
    if min(region.shape[:2]) < 8:
        return 0.0, 0.0
    factor = ratio / _MAX_OVERSAMPLING
    if factor > 1.0:
        size = (max(8, round(region.shape[1] / factor)), max(8, round(region.shape[0] / factor)))
        region, ratio = cv2.resize(region, size, interpolation=cv2.INTER_AREA), _MAX_OVERSAMPLING
    grey = cv2.cvtColor(region, cv2.COLOR_RGB2GRAY).astype(np.float32)
    fine = grey - cv2.GaussianBlur(grey, (0, 0), 0.5 * ratio)
    return float(np.sqrt(np.mean(fine * fine))), float(grey.std())
