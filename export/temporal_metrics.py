"""Measures of a restored video over time, each a function of frames alone; what a blurred video wins is told apart
by giving the same figures for the degraded input and for the truth.

Frames are (H, W, 3) uint8 RGB, masks (H, W) bool, one per frame.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import cv2
import numpy as np

from idm_rt.types import FloatArray, RgbImage

OCCLUDED = 12.0  # 8-bit steps: where even the truth differs by more from its own past, the flow does not hold


def backward_flows(truth: Sequence[RgbImage]) -> list[np.ndarray]:
    """For each frame but the first, where each pixel was in the frame before: (H, W, 2) px, by DIS optical flow.

    Kroeger et al., "Fast Optical Flow using Dense Inverse Search", ECCV 2016.
    """
    flow = cv2.DISOpticalFlow.create(cv2.DISOPTICAL_FLOW_PRESET_MEDIUM)
    grey = [cv2.cvtColor(frame, cv2.COLOR_RGB2GRAY) for frame in truth]
    blank: np.ndarray = np.zeros((*grey[0].shape[:2], 2), np.float32)
    return [np.asarray(flow.calc(now, before, blank.copy())) for before, now in pairwise(grey)]


def warp_back(before: np.ndarray, flow: np.ndarray) -> np.ndarray:
    """The frame before, moved along the flow to where things are now; float32."""
    height, width = flow.shape[:2]
    x, y = np.meshgrid(np.arange(width, dtype=np.float32), np.arange(height, dtype=np.float32))
    picture = before.astype(np.float32)
    return cv2.remap(picture, x + flow[..., 0], y + flow[..., 1], cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)


def seen_masks(truth: Sequence[RgbImage], flows: Sequence[np.ndarray], faces: Sequence[np.ndarray]) -> list[np.ndarray]:
    """For each frame but the first, the face's pixels that the truth's own flow explains."""
    return [
        face & (np.abs(now - warp_back(before, flow)).max(axis=2) < OCCLUDED)
        for (before, now), flow, face in zip(pairwise(truth), flows, faces[1:], strict=True)
    ]


def warping_error(frames: Sequence[RgbImage], flows: Sequence[np.ndarray], masks: Sequence[np.ndarray]) -> float:
    """Mean absolute difference of each frame to the one before moved along the truth's flow, 8-bit steps.

    As in Lai et al., "Learning Blind Video Temporal Consistency", ECCV 2018, eq. 8, with L1. Frames whose mask is empty
    do not count; 0 if all are.
    """
    errors = [
        float(np.abs(now - warp_back(before, flow))[mask].mean())
        for (before, now), flow, mask in zip(pairwise(frames), flows, masks, strict=True)
        if mask.any()
    ]
    return float(np.mean(errors)) if errors else 0.0


def flicker(frames: Sequence[RgbImage], mask: np.ndarray) -> float:
    """Standard deviation over time of what ought to stand still, mean over the mask's pixels, 8-bit steps."""
    return float(np.stack([frame[mask] for frame in frames]).std(axis=0, dtype=np.float64).mean())


def landmark_jitter(points_xy: Sequence[FloatArray | None], eye_distance_px: float) -> float | None:
    """Mean second difference of landmarks, per cent of the eyes' distance: even motion gives 0.

    ``points_xy``: (K, 2) per frame, None where no face was found. None without three frames running.
    """
    bends = [
        np.linalg.norm(a - 2.0 * b + c, axis=1).mean()
        for (a, b), (_, c) in pairwise(pairwise(points_xy))
        if a is not None and b is not None and c is not None
    ]
    return float(np.mean(bends)) / eye_distance_px * 100.0 if bends else None


def identity_figures(embeddings: np.ndarray, truth: np.ndarray) -> tuple[float, float]:
    """(mean distance to the truth's embedding of the same frame, deviation of the embeddings over time).

    Args:
        embeddings: (T, D), one per frame.
        truth: (T, D).
    """
    distance = np.linalg.norm(embeddings - truth, axis=1).mean()
    spread = np.sqrt(np.square(embeddings - embeddings.mean(axis=0)).sum(axis=1).mean())
    return float(distance), float(spread)


def face_mask(landmarks_xy: FloatArray, frame_hw: tuple[int, int]) -> np.ndarray:
    """Inside of the landmarks' convex hull, (H, W) bool."""
    mask: np.ndarray = np.zeros(frame_hw, np.uint8)
    hull = cv2.convexHull(np.round(landmarks_xy).astype(np.int32))
    return np.asarray(cv2.fillConvexPoly(mask, hull, 1)).astype(bool)


def masked_psnr(frames: Sequence[RgbImage], truth: Sequence[RgbImage], masks: Sequence[np.ndarray]) -> float:
    """PSNR over all masked pixels of a video, dB; 99 for equal ones."""
    differences = [a[m].astype(np.float32) - b[m] for a, b, m in zip(frames, truth, masks, strict=True) if m.any()]
    error = np.mean(np.square(np.concatenate(differences))) if differences else 0.0
    return 99.0 if error == 0 else float(10 * np.log10(255.0**2 / error))
