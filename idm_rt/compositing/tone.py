"""Takes colour and brightness shifts out of a correction, so that a face keeps the light of its frame."""

from __future__ import annotations

import cv2
import numpy as np

from idm_rt.compositing.mask import FloatMap

_TONE_SIZE = 32  # px side of the grid: tone is far broader than its 8 px cells


def match_tone(correction: FloatMap, mask: FloatMap, sigma: float, share: float = 1.0) -> FloatMap:
    """The correction without what in it is broader than detail, per channel.

    The broad part is the mask-weighted Gaussian mean (normalised convolution, Knutsson and Westin, CVPR 1993), so
    that what the correction does to hair and background does not leak into the face.

    Args:
        correction: (S, S, 3) float32 in 8-bit steps.
        mask: (n, n) float32 0..1 over the same square.
        sigma: standard deviation of the Gaussian, as a share of the side.
        share: how much of the broad part is removed, 0..1.
    """
    if share == 0.0:
        return correction
    small = cv2.resize(correction, (_TONE_SIZE, _TONE_SIZE), interpolation=cv2.INTER_AREA)
    weight = cv2.resize(mask, (_TONE_SIZE, _TONE_SIZE), interpolation=cv2.INTER_AREA)
    width = sigma * _TONE_SIZE
    total = cv2.GaussianBlur(small * weight[..., None], (0, 0), width, borderType=cv2.BORDER_CONSTANT)
    norm = cv2.GaussianBlur(weight, (0, 0), width, borderType=cv2.BORDER_CONSTANT)
    tone = total / np.maximum(norm, np.float32(1e-3))[..., None]
    size = correction.shape[0]
    return cv2.scaleAdd(cv2.resize(tone, (size, size), interpolation=cv2.INTER_LINEAR), -share, correction)
