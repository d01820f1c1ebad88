"""One face over time."""

from __future__ import annotations

import numpy as np

from idm_rt.geometry import similarity_from_points, transform_points
from idm_rt.landmarks import five_points
from idm_rt.tracking.records import RawFace
from idm_rt.tracking.smoothing import OneEuroFilter, OneEuroOptions, smoothing_factor
from idm_rt.tracking.windows import larger_side
from idm_rt.types import FaceTrack, FloatArray

_FADE = 0.6  # of the score per missed frame
_COAST = 0.5  # of the velocity per missed frame: an unseen face is not thrown across the frame
_POSE_CUTOFF_HZ = 4.0
_SCORE_CUTOFF_HZ = 4.0
_SHAPE_TOLERANCE = 0.10  # face sizes: a mesh that changes its shape by this much in one frame has lost the face


class Track:
    """State of one face; ``FaceTracker`` decides about its life.

    Attributes:
        track_id: unique, never reused.
        confirmed: whether it may be shown.
        shown: whether it was among the faces of the last frame.
        missed: frames since it was last seen.
        box_xyxy: (4,) px, of the smoothed landmarks.
    """

    def __init__(self, track_id: int, face: RawFace, *, confirmed: bool, smoothing: OneEuroOptions) -> None:
        self.track_id = track_id
        self.confirmed = confirmed
        self.shown = False
        self.missed = 0
        self._age = 0
        self._filter = OneEuroFilter(smoothing)
        self._raw = face
        self._landmarks = self._filter(face.landmarks_xy, larger_side(face.box_xyxy), 1.0)
        self._velocity = np.zeros(2)  # px / ms
        self._score = face.score
        self._pose = np.array([face.yaw_deg, face.pitch_deg])

    @property
    def box_xyxy(self) -> FloatArray:
        return np.concatenate([self._landmarks.min(axis=0), self._landmarks.max(axis=0)])

    def predicted_box(self, dt_ms: float) -> FloatArray:
        """(4,) px: where the face should be one interval later."""
        return self.box_xyxy + np.tile(self._velocity * dt_ms, 2)

    def forget_motion(self) -> None:
        """The next observation is taken as it is, whatever was seen before."""
        self._filter.reset()
        self._velocity = np.zeros(2)

    def see(self, face: RawFace, dt_ms: float) -> None:
        """Take in this frame's observation."""
        elapsed_s = dt_ms * (self.missed + 1) / 1000.0
        steady = shape_agreement(self._raw.landmarks_xy, face.landmarks_xy)
        weight = smoothing_factor(_POSE_CUTOFF_HZ, elapsed_s)
        self._pose = self._pose + weight * (np.array([face.yaw_deg, face.pitch_deg]) - self._pose)
        self._score += float(smoothing_factor(_SCORE_CUTOFF_HZ, elapsed_s)) * (face.score * steady - self._score)
        moved = face.landmarks_xy.mean(axis=0) - self._raw.landmarks_xy.mean(axis=0)
        self._velocity = moved / (elapsed_s * 1000.0)
        self._landmarks = self._filter(face.landmarks_xy, larger_side(face.box_xyxy), elapsed_s)
        self._raw = face
        self._age += self.confirmed  # a face that was not shown yet has no age
        self.missed = 0
        self.confirmed = True

    def miss(self, dt_ms: float) -> None:
        """Carry the face on, slower and less certain."""
        self.missed += 1
        self._age += 1
        self._velocity = self._velocity * _COAST
        self._landmarks = self._landmarks + self._velocity * dt_ms
        self._score *= _FADE

    def report(self) -> FaceTrack:
        """The record that the other stages see."""
        yaw, pitch = (float(value) for value in self._pose)
        score = min(1.0, max(0.0, float(self._score)))
        return FaceTrack(self.track_id, self.box_xyxy, self._landmarks.copy(), score, yaw, pitch, self._age)


def shape_agreement(before_xy: FloatArray, after_xy: FloatArray) -> float:
    """How alike two meshes (478, 2) of one face are after shift, turn and scale are taken out, 0..1.

    Talking, blinking and turning a little leave it near 1; a mesh that has slipped off the face does not.
    """
    size = larger_side(np.concatenate([after_xy.min(axis=0), after_xy.max(axis=0)]))
    if not size > 0:
        return 0.0
    fitted = transform_points(similarity_from_points(five_points(before_xy), five_points(after_xy)), before_xy)
    error = float(np.sqrt(np.mean(np.sum((fitted - after_xy) ** 2, axis=1)))) / size
    return float(np.exp(-((error / _SHAPE_TOLERANCE) ** 2)))
