"""How much of a face's correction may be shown, from its track alone. Pure."""

from __future__ import annotations

import math

import numpy as np

from idm_rt.compositing.options import CompositeOptions
from idm_rt.types import FaceTrack


def smooth_step(value: float, low: float, high: float) -> float:
    """0 up to ``low``, 1 from ``high``, the cubic 3t^2 - 2t^3 between; not-a-number counts as ``low``."""
    t = (value - low) / (high - low)
    t = min(max(t, 0.0), 1.0) if math.isfinite(t) else 0.0
    return t * t * (3.0 - 2.0 * t)


def face_confidence(track: FaceTrack, frame_hw: tuple[int, int], options: CompositeOptions | None = None) -> float:
    """0..1: 1 shows the whole correction, 0 leaves the face as the camera saw it.

    The product of six smooth fades: side view, strong pitch, small size, low score, new track, mostly out of frame.
    It depends on no pixel, so the pipeline may ask before it restores and save the network's work at 0.

    Args:
        track: the face; its ``age`` counts frames from 0.
        frame_hw: height and width of the frame in px.
    """
    options = options or CompositeOptions()
    fades = (
        1.0 - smooth_step(abs(track.yaw_deg), *options.yaw_fade_deg),
        1.0 - smooth_step(abs(track.pitch_deg), *options.pitch_fade_deg),
        size_fade(track, options.min_face_px),
        smooth_step(track.score, *options.score_fade),
        age_fade(track.age, options.fade_in_frames),
        smooth_step(share_inside(track, frame_hw), *options.inside_fade),
    )
    return float(np.prod(fades))


def size_fade(track: FaceTrack, min_face_px: float) -> float:
    """0 at ``min_face_px`` of the larger box side, 1 at 1.5 times that."""
    x0, y0, x1, y1 = track.box_xyxy
    side = float(max(x1 - x0, y1 - y0))
    return smooth_step(side, min_face_px, 1.5 * min_face_px) if min_face_px > 0 else 1.0


def age_fade(age: int, frames: int) -> float:
    """Grows in equal steps: 1 / (frames + 1) in a track's first frame, 1 after ``frames`` more."""
    return min(1.0, (age + 1) / (frames + 1))


def share_inside(track: FaceTrack, frame_hw: tuple[int, int]) -> float:
    """Share of the landmarks whose pixel lies inside the frame, 0..1."""
    height, width = frame_hw
    points = track.landmarks_xy
    if not len(points):
        return 0.0
    x, y = points[:, 0], points[:, 1]
    return float(np.mean((x > -0.5) & (x < width - 0.5) & (y > -0.5) & (y < height - 0.5)))
