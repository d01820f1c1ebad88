"""The published degradation range of blind face restoration, for comparable figures beside the calls of our own.

Wang et al., "Towards Real-World Blind Face Restoration with Generative Facial Prior" (GFPGAN), CVPR 2021, eq. 1, with
the wide range that later work tests on: y = JPEG_q((x * k_s) down_r + n_d) up, blur sigma s 0.1..15, scale r 0.8..32,
noise d 0..20, quality q 30..100. Those lengths are in px of the FFHQ crop at 512, where the eyes are 128 px apart. In
our crop they are 77 px apart, so s and r are multiplied by 0.6: a face loses the same detail as it would at 512. A
scale below 1 after that stays at 1. Noise and quality act on the small picture and need no change.
"""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np

from export.codecs import jpeg_round_trip
from idm_rt.geometry import ALIGN_TEMPLATE, CROP_SIZE

FFHQ_EYE_DISTANCE = 0.25  # of the crop's side (Karras et al., CVPR 2019)


@dataclass(frozen=True, slots=True)
class BlindRange:
    """What is drawn, uniformly each, in px of an FFHQ crop of ``side``."""

    blur_sigma: tuple[float, float] = (0.1, 15.0)
    down_scale: tuple[float, float] = (0.8, 32.0)
    noise: tuple[float, float] = (0.0, 20.0)  # sigma, 8-bit steps
    jpeg: tuple[int, int] = (30, 100)
    side: int = 512

    def to_crop(self) -> float:
        """Px of our crop per px of the range's."""
        eyes = float(ALIGN_TEMPLATE[1, 0] - ALIGN_TEMPLATE[0, 0]) * CROP_SIZE
        return eyes / (FFHQ_EYE_DISTANCE * self.side)


def degrade_blind(image: np.ndarray, drawn_from: BlindRange, rng: np.random.Generator) -> np.ndarray:
    """One degraded picture of the same size; ``image`` is (H, W, 3) uint8 at the scale of our crop."""
    height, width = image.shape[:2]
    picture: np.ndarray = image.astype(np.float32)
    picture = cv2.filter2D(picture, -1, gaussian_kernel(drawn_from, rng), borderType=cv2.BORDER_REFLECT_101)
    shrink = max(1.0, rng.uniform(*drawn_from.down_scale) * drawn_from.to_crop())
    small = (max(8, round(width / shrink)), max(8, round(height / shrink)))
    picture = cv2.resize(picture, small, interpolation=cv2.INTER_AREA)
    picture = picture + rng.normal(0, rng.uniform(*drawn_from.noise), picture.shape)
    coded = jpeg_round_trip(np.clip(picture + 0.5, 0, 255).astype(np.uint8), int(rng.integers(*drawn_from.jpeg)) + 1)
    return cv2.resize(coded, (width, height), interpolation=cv2.INTER_CUBIC)


def gaussian_kernel(drawn_from: BlindRange, rng: np.random.Generator) -> np.ndarray:
    """Isotropic or turned anisotropic Gaussian, each half of the time; sums to 1."""
    scale = drawn_from.to_crop()
    first, second = (rng.uniform(*drawn_from.blur_sigma) * scale for _ in range(2))
    if rng.random() < 0.5:
        second = first
    angle = rng.uniform(0, np.pi)
    reach = int(np.ceil(3 * max(first, second))) or 1
    y, x = np.mgrid[-reach : reach + 1, -reach : reach + 1].astype(np.float64)
    along, across = np.cos(angle) * x + np.sin(angle) * y, np.cos(angle) * y - np.sin(angle) * x
    kernel = np.exp(-0.5 * ((along / first) ** 2 + (across / second) ** 2))
    return (kernel / kernel.sum()).astype(np.float32)
