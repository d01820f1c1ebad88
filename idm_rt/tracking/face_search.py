"""One look at a part of a frame with one of the two nets, and what it tells. No memory; see ``finders`` for that."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Protocol

import numpy as np

from idm_rt.landmarks import LEFT_EYE, RIGHT_EYE
from idm_rt.tracking import windows
from idm_rt.tracking.records import FaceBox, RawFace
from idm_rt.tracking.windows import Window
from idm_rt.types import FloatArray, RgbImage

WINDOW_MARGIN = 0.5  # of the face on each side: room for half a face of motion between two frames
_SAME_FACE = 0.8  # windows.distance_in_sizes below which a mesh belongs to the face that was looked for
_NESTED = 0.5  # overlap of the smaller box above which two finds are one face


class BoxDetector(Protocol):
    """``openvino_nets.OpenVinoFaceDetector``, ``landmarker.FaceDetector`` or a test's stand-in."""

    def detect(self, image: RgbImage) -> list[FaceBox]:
        """Boxes in px of the picture."""

    def close(self) -> None:
        """Free the net."""


class MeshDetector(Protocol):
    """``openvino_nets.OpenVinoFaceMesh``, ``landmarker.FaceLandmarker`` or a test's stand-in."""

    def detect(self, image: RgbImage, around: FaceBox) -> list[RawFace]:
        """Meshes in px of the picture; ``around``, in the same px, is where one is expected."""

    def close(self) -> None:
        """Free the net."""


def boxes_in_window(image: RgbImage, window: Window, detector: BoxDetector) -> list[FaceBox]:
    """What the detector sees in one window of the frame, in px of the frame."""
    part = windows.cut(image, window, exact=False)
    if part is None:
        return []
    return [replace(found, box_xyxy=part.to_frame(_corners(found)).ravel()) for found in detector.detect(part.image)]


def mesh_in_box(image: RgbImage, expected: FaceBox, landmarker: MeshDetector) -> RawFace | None:
    """The mesh of the face that is expected in a box of the frame, in px of the frame; None if there is none."""
    part = windows.cut(image, windows.window_around(expected.box_xyxy, WINDOW_MARGIN))
    if part is None:
        return None
    around = replace(expected, box_xyxy=part.from_frame(_corners(expected)).ravel())
    found = landmarker.detect(part.image, around)
    faces = [replace(face, landmarks_xy=part.to_frame(face.landmarks_xy)) for face in found]
    best = min(faces, key=lambda face: windows.distance_in_sizes(face.box_xyxy, expected.box_xyxy), default=None)
    if best is None or windows.distance_in_sizes(best.box_xyxy, expected.box_xyxy) > _SAME_FACE:
        return None
    return best


def strongest(found: list[FaceBox]) -> list[FaceBox]:
    """Greedy non-maximum suppression: of boxes that show the same face, the one with the highest score stays."""
    kept: list[FaceBox] = []
    for box in sorted(found, key=lambda face: -face.score):
        if not any(is_same(box.box_xyxy, other.box_xyxy) for other in kept):
            kept.append(box)
    return kept


def in_frame_fraction(landmarks_xy: FloatArray, frame_hw: tuple[int, int]) -> float:
    """Part of the landmarks that lies inside the frame, 0..1."""
    height, width = frame_hw
    x, y = landmarks_xy[:, 0], landmarks_xy[:, 1]
    return float(np.mean((x >= -0.5) & (x <= width - 0.5) & (y >= -0.5) & (y <= height - 0.5)))


def eye_line_roll(landmarks_xy: FloatArray) -> float:
    """Angle of the line between the outer corners of the eyes against the x axis, radians, positive = clockwise."""
    across = landmarks_xy[RIGHT_EYE[0]] - landmarks_xy[LEFT_EYE[0]]
    return math.atan2(float(across[1]), float(across[0]))


def scored(face: RawFace, confidence: float, image: RgbImage) -> RawFace:
    """The face with the detector's confidence, the mesh net's and the part of it in the frame as one score."""
    inside = in_frame_fraction(face.landmarks_xy, (image.shape[0], image.shape[1]))
    return replace(face, score=min(1.0, confidence) * face.score * inside)


def fits(box_xyxy: FloatArray, window: Window) -> bool:
    """Whether the window shows the whole box, at a size the detector was made for."""
    inside = windows.intersection(box_xyxy, np.array([window.x0, window.y0, window.x1, window.y1], dtype=np.float64))
    part = windows.larger_side(box_xyxy) / window.longer_side
    return inside > 0.99 * windows.area(box_xyxy) and part > windows.DETECTABLE_FRACTION


def is_same(a_xyxy: FloatArray, b_xyxy: FloatArray) -> bool:
    """Whether two boxes show one face: one lies for the most part inside the other."""
    return windows.overlap_of_smaller(a_xyxy, b_xyxy) > _NESTED


def _corners(face: FaceBox) -> FloatArray:
    """(2, 2): top left and bottom right."""
    return face.box_xyxy.reshape(2, 2)
