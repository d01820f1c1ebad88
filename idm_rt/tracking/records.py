"""What the nets report, before it has an identity."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from idm_rt.types import FloatArray


@dataclass(frozen=True, slots=True)
class FaceBox:
    """Where a face is seen or expected."""

    box_xyxy: FloatArray  # (4,) px: a detector's is about square, brows to chin; a mesh's is tight
    score: float = 1.0  # 0..1: the detector's own confidence
    roll_rad: float = 0.0  # angle of the eye line against the picture's x axis, positive = clockwise on screen


@dataclass(frozen=True, slots=True)
class RawFace:
    """One face mesh in one picture, not smoothed, without identity."""

    landmarks_xy: FloatArray  # (478, 2) px of the picture, pixel centres at integers
    yaw_deg: float  # 0 = frontal, positive = the face turns to the viewer's right
    pitch_deg: float  # 0 = level, positive = the face looks up
    score: float = 1.0  # 0..1: how sure the net, then the finder is; 1 from a net that gives no score

    @property
    def box_xyxy(self) -> FloatArray:
        """(4,) px: tight box of the landmarks."""
        return np.concatenate([self.landmarks_xy.min(axis=0), self.landmarks_xy.max(axis=0)])
