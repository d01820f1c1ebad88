"""What looks for faces in a frame: one finder for streams, one for unrelated photos.

mediapipe's own VIDEO mode is not used. It cannot be told where to look, and its detector, which sees the whole frame
at 128x128, finds no face below about 12 % of the frame's width (a 120 px face in 1280x720 is lost). Following more
than one face it runs the detector on every frame anyway, and following one it filters the landmarks with a lag of its
own (2 px behind a face that starts to move by 8 px a frame). Here the mesh net is shown a window around each known
face, cut from the full frame: small faces keep their precision and the cost follows the face, not the frame.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Protocol

import numpy as np

from idm_rt.landmarks import LEFT_EYE, RIGHT_EYE
from idm_rt.tracking import windows
from idm_rt.tracking.records import FaceBox, RawFace
from idm_rt.tracking.windows import Window
from idm_rt.types import FloatArray, RgbImage

_WINDOW_MARGIN = 0.5  # of the face on each side: room for half a face of motion between two frames
_SAME_FACE = 0.8  # windows.distance_in_sizes below which a mesh belongs to the face that was looked for
_NESTED = 0.5  # overlap of the smaller box above which two finds are one face


class FaceFinder(Protocol):
    """Finds the faces of a frame; may remember where they were."""

    def detect(self, image: RgbImage, timestamp_ms: float) -> list[RawFace]:
        """Faces of one (H, W, 3) uint8 RGB frame, in its px."""

    def reset(self) -> None:
        """Forget where faces were."""

    def close(self) -> None:
        """Free the nets."""


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


@dataclass(frozen=True, slots=True)
class FinderOptions:
    """How hard to look."""

    min_face_px: float = 40.0  # larger side of the smallest face worth finding
    max_faces: int = 6  # meshes per frame; the largest win
    search_every: int = 3  # while faces are known, a window is searched for others in every n-th frame
    windows_per_frame: int = 3  # windows searched per frame while no face is known
    max_missed: int = 3  # frames that a face is looked for where it was last seen


@dataclass(frozen=True, slots=True)
class _Known:
    """A face of the last frames."""

    face: RawFace  # as the mesh net last saw it
    confidence: float  # the detector's, from when that last saw the face
    velocity: FloatArray  # (2,) px per frame
    missed: int = 0  # frames since it was last seen

    def predicted(self) -> FaceBox:
        box_xyxy = self.face.box_xyxy + np.tile(self.velocity, 2)
        return FaceBox(box_xyxy, self.confidence, eye_line_roll(self.face.landmarks_xy))


class VideoFaceFinder:
    """Follows known faces window by window and searches the rest of the frame a little at a time.

    A face that fills 15 % of the frame is found in the first frame that shows it while no other face is known, else
    within nine. Smaller ones are found when their tile's turn comes: in 1280x720 within 31 frames for 40 px; while
    other faces are followed within 280.
    """

    def __init__(self, detector: BoxDetector, landmarker: MeshDetector, options: FinderOptions | None = None) -> None:
        self._detector, self._landmarker = detector, landmarker
        self._options = options or FinderOptions()
        self._frame_hw = (0, 0)
        self._plan: list[Window] = []
        self.reset()

    def reset(self) -> None:
        """Forget every face; the next frame searches from the start."""
        self._known: list[_Known] = []
        self._frames = 0
        self._searches = 0

    def close(self) -> None:
        """Free both nets."""
        self._detector.close()
        self._landmarker.close()

    def detect(self, image: RgbImage, timestamp_ms: float) -> list[RawFace]:
        """Faces of the next frame of a stream, largest first; a frame of another size starts afresh."""
        if image.shape[:2] != self._frame_hw:
            self._frame_hw = (image.shape[0], image.shape[1])
            self._plan = windows.search_windows(self._frame_hw, self._options.min_face_px)
            self.reset()
        known: list[_Known] = []
        for before in self._known:
            now = self._follow(image, before)
            if now is not None and not any(_is_same(now.face.box_xyxy, other.face.box_xyxy) for other in known):
                known.append(now)
        for window in self._windows_to_search(bool(known)):
            known = self._search(image, window, known)
        self._frames += 1
        known.sort(key=lambda item: -windows.area(item.face.box_xyxy))
        self._known = known[: self._options.max_faces]
        return [_scored(item.face, item.confidence, image) for item in self._known if item.missed == 0]

    def _follow(self, image: RgbImage, before: _Known) -> _Known | None:
        """The known face in this frame; the same face once more missed; None when it is given up."""
        face = mesh_in_box(image, before.predicted(), self._landmarker)
        if face is None:
            missed = before.missed + 1
            return replace(before, missed=missed) if missed <= self._options.max_missed else None
        moved = (_centre(face.box_xyxy) - _centre(before.face.box_xyxy)) / (before.missed + 1)
        return _Known(face, before.confidence, moved)

    def _search(self, image: RgbImage, window: Window, known: list[_Known]) -> list[_Known]:
        """The known faces, the detector's confidence renewed where it saw them, and the new ones."""
        known = list(known)
        for found in boxes_in_window(image, window, self._detector):
            index = next((i for i, item in enumerate(known) if _is_same(item.face.box_xyxy, found.box_xyxy)), None)
            if index is not None:
                if _fits(found.box_xyxy, window):  # a tile that shows half of a large face says nothing about it
                    known[index] = _with_confidence(known[index], found.score)
                continue
            mesh = mesh_in_box(image, found, self._landmarker)
            if mesh is not None and not any(_is_same(mesh.box_xyxy, item.face.box_xyxy) for item in known):
                known.append(_Known(mesh, found.score, np.zeros(2)))
        return known

    def _windows_to_search(self, any_known: bool) -> list[Window]:
        """The whole frame every third time, one tile after the other in between."""
        if not any_known:
            count = self._options.windows_per_frame
            return [self._plan[0], *(self._next_tile() for _ in range(min(count, len(self._plan)) - 1))]
        if self._frames % self._options.search_every:
            return []
        whole = (self._frames // self._options.search_every) % 3 == 0
        return [self._plan[0] if whole else self._next_tile()]

    def _next_tile(self) -> Window:
        tiles = self._plan[1:] or self._plan
        self._searches += 1
        return tiles[(self._searches - 1) % len(tiles)]


class PhotoFaceFinder:
    """Searches every window of every picture, without memory.

    About 2 ms per window on one core: 58 windows for 1280x720 and faces from 40 px, some 700 for 12 megapixels.
    """

    def __init__(self, detector: BoxDetector, landmarker: MeshDetector, options: FinderOptions | None = None) -> None:
        self._detector, self._landmarker = detector, landmarker
        self._options = options or FinderOptions()

    def reset(self) -> None:
        """Nothing is remembered."""

    def close(self) -> None:
        """Free both nets."""
        self._detector.close()
        self._landmarker.close()

    def detect(self, image: RgbImage, timestamp_ms: float) -> list[RawFace]:
        """Faces of one picture, largest first."""
        plan = windows.search_windows((image.shape[0], image.shape[1]), self._options.min_face_px)
        found = [face for window in plan for face in boxes_in_window(image, window, self._detector)]
        faces: list[RawFace] = []
        for box in strongest(found):
            mesh = mesh_in_box(image, box, self._landmarker)
            if mesh is not None and not any(_is_same(mesh.box_xyxy, other.box_xyxy) for other in faces):
                faces.append(_scored(mesh, box.score, image))
        faces.sort(key=lambda face: -windows.area(face.box_xyxy))
        return faces[: self._options.max_faces]


def boxes_in_window(image: RgbImage, window: Window, detector: BoxDetector) -> list[FaceBox]:
    """What the detector sees in one window of the frame, in px of the frame."""
    part = windows.cut(image, window, exact=False)
    if part is None:
        return []
    return [replace(found, box_xyxy=part.to_frame(_corners(found)).ravel()) for found in detector.detect(part.image)]


def mesh_in_box(image: RgbImage, expected: FaceBox, landmarker: MeshDetector) -> RawFace | None:
    """The mesh of the face that is expected in a box of the frame, in px of the frame; None if there is none."""
    part = windows.cut(image, windows.window_around(expected.box_xyxy, _WINDOW_MARGIN))
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
        if not any(_is_same(box.box_xyxy, other.box_xyxy) for other in kept):
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


def _scored(face: RawFace, confidence: float, image: RgbImage) -> RawFace:
    """The face with the detector's confidence, the mesh net's and the part of it in the frame as one score."""
    inside = in_frame_fraction(face.landmarks_xy, (image.shape[0], image.shape[1]))
    return replace(face, score=min(1.0, confidence) * face.score * inside)


def _with_confidence(item: _Known, detected: float) -> _Known:
    """Half way towards what the detector says now, so that one odd look does not make the score jump."""
    return replace(item, confidence=(item.confidence + detected) / 2.0)


def _fits(box_xyxy: FloatArray, window: Window) -> bool:
    """Whether the window shows the whole box, at a size the detector was made for."""
    inside = windows.intersection(box_xyxy, np.array([window.x0, window.y0, window.x1, window.y1], dtype=np.float64))
    part = windows.larger_side(box_xyxy) / window.longer_side
    return inside > 0.99 * windows.area(box_xyxy) and part > windows.DETECTABLE_FRACTION


def _is_same(a_xyxy: FloatArray, b_xyxy: FloatArray) -> bool:
    return windows.overlap_of_smaller(a_xyxy, b_xyxy) > _NESTED


def _corners(face: FaceBox) -> FloatArray:
    """(2, 2): top left and bottom right."""
    return face.box_xyxy.reshape(2, 2)


def _centre(box_xyxy: FloatArray) -> FloatArray:
    return (box_xyxy[:2] + box_xyxy[2:]) / 2.0
