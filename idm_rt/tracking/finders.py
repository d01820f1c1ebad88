"""What looks for faces in a frame: one finder for streams, one for unrelated photos.

mediapipe's own VIDEO mode is not used. It cannot be told where to look, and its detector, which sees the whole frame
at 128x128, finds no face below about 12 % of the frame's width (a 120 px face in 1280x720 is lost). Following more
than one face it runs the detector on every frame anyway, and following one it filters the landmarks with a lag of its
own (2 px behind a face that starts to move by 8 px a frame). Here the mesh net is shown a window around each known
face, cut from the full frame: small faces keep their precision and the cost follows the face, not the frame.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Protocol

import numpy as np

from idm_rt.tracking import face_search, windows
from idm_rt.tracking.face_search import BoxDetector, MeshDetector, boxes_in_window, is_same, mesh_in_box
from idm_rt.tracking.records import FaceBox, RawFace
from idm_rt.tracking.windows import Window
from idm_rt.types import FloatArray, RgbImage

_SLOW = 0.05  # face sizes per frame: motion that a window need not follow ahead
_CYCLE = 3  # searches while faces are known: the whole frame, a face that the first missed or else a tile, a tile
_MAX_DOUBTS = 3  # looks in vain, frame after frame, before a followed face is given up


class FaceFinder(Protocol):
    """Finds the faces of a frame; may remember where they were."""

    def detect(self, image: RgbImage, timestamp_ms: float) -> list[RawFace]:
        """Faces of one (H, W, 3) uint8 RGB frame, in its px."""

    def reset(self) -> None:
        """Forget where faces were."""

    def close(self) -> None:
        """Free the nets."""


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
    missed: int = 0  # frames since the mesh net last saw it
    unconfirmed: int = 0  # frames since the detector last saw it
    doubts: int = 0  # looks of the detector at its place, in vain

    def predicted(self) -> FaceBox:
        """Where it should be now. Slow motion is left out: the window has room for it, and a velocity is the
        difference of two noisy places, which shakes the window and with it the mesh (a quarter more jitter)."""
        speed = float(np.hypot(*self.velocity))
        slow = _SLOW * windows.larger_side(self.face.box_xyxy)
        motion = self.velocity * max(0.0, 1.0 - slow / max(speed, 1e-9))
        box_xyxy = self.face.box_xyxy + np.tile(motion, 2)
        return FaceBox(box_xyxy, self.confidence, face_search.eye_line_roll(self.face.landmarks_xy))

    def confirmed(self, detected: float) -> _Known:
        """Half way towards what the detector says now, so that one odd look does not make the score jump."""
        return replace(self, confidence=(self.confidence + detected) / 2.0, unconfirmed=0, doubts=0)


class VideoFaceFinder:
    """Follows known faces window by window and searches the rest of the frame a little at a time.

    A face that fills 15 % of the frame is found in the first frame that shows it while no other face is known, else
    within nine. Smaller ones are found when their tile's turn comes: in 1280x720 within 31 frames for 40 px; while
    other faces are followed within 280, twice that where one of them is small.

    The mesh net's presence score lets a followed face go at once when it is covered. Against a mesh that clings to
    something else, a face that no search has seen is looked at by the detector on its own.
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
            if now is not None and not any(is_same(now.face.box_xyxy, other.face.box_xyxy) for other in known):
                known.append(now)
        due = self._to_confirm(known)
        for window in self._windows_to_search(any_known=bool(known), any_due=bool(due)):
            known = self._search(image, window, known)
        known = [self._confirm(image, item) if index in due else item for index, item in enumerate(known)]
        self._frames += 1
        known = [item for item in known if item.doubts < _MAX_DOUBTS]
        known.sort(key=lambda item: -windows.area(item.face.box_xyxy))
        self._known = known[: self._options.max_faces]
        return [face_search.scored(item.face, item.confidence, image) for item in self._known if item.missed == 0]

    def _follow(self, image: RgbImage, before: _Known) -> _Known | None:
        """The known face in this frame; the same face once more missed; None when it is given up."""
        face = mesh_in_box(image, before.predicted(), self._landmarker)
        if face is None:
            missed = before.missed + 1
            return replace(before, missed=missed) if missed <= self._options.max_missed else None
        moved = (_centre(face.box_xyxy) - _centre(before.face.box_xyxy)) / (before.missed + 1)
        return replace(before, face=face, velocity=moved, missed=0, unconfirmed=before.unconfirmed + 1)

    def _search(self, image: RgbImage, window: Window, known: list[_Known]) -> list[_Known]:
        """The known faces, the detector's confidence renewed where it saw them, and the new ones."""
        known = list(known)
        for found in boxes_in_window(image, window, self._detector):
            index = next((i for i, item in enumerate(known) if is_same(item.face.box_xyxy, found.box_xyxy)), None)
            if index is not None:
                if face_search.fits(found.box_xyxy, window):  # half of a large face in a tile says nothing about it
                    known[index] = known[index].confirmed(found.score)
                continue
            mesh = mesh_in_box(image, found, self._landmarker)
            if mesh is not None and not any(is_same(mesh.box_xyxy, item.face.box_xyxy) for item in known):
                known.append(_Known(mesh, found.score, np.zeros(2)))
        return known

    def _to_confirm(self, known: list[_Known]) -> set[int]:
        """Indices of the faces to look at on their own: those in doubt, and in its turn one that no search has seen."""
        due = {index for index, item in enumerate(known) if item.doubts and not item.missed}
        if self._turn() == 1:
            waiting = [(item.unconfirmed, index) for index, item in enumerate(known) if not item.missed]
            longest, index = max(waiting, default=(0, 0))
            if longest > self._options.search_every:  # the search of the whole frame, one turn ago, has not seen it
                due.add(index)
        return due

    def _confirm(self, image: RgbImage, item: _Known) -> _Known:
        """The face, confirmed or doubted, after one look of the detector at its place."""
        box_xyxy = item.face.box_xyxy
        window = windows.window_around(box_xyxy, face_search.WINDOW_MARGIN)
        found = [face for face in boxes_in_window(image, window, self._detector) if is_same(face.box_xyxy, box_xyxy)]
        return item.confirmed(found[0].score) if found else replace(item, doubts=item.doubts + 1)

    def _turn(self) -> int | None:
        """Which search of the cycle this frame has, None = none; counts while faces are known."""
        turn, rest = divmod(self._frames, self._options.search_every)
        return None if rest else turn % _CYCLE

    def _windows_to_search(self, *, any_known: bool, any_due: bool) -> list[Window]:
        """The whole frame every third time, one tile after the other in between."""
        if not any_known:
            count = self._options.windows_per_frame
            return [self._plan[0], *(self._next_tile() for _ in range(min(count, len(self._plan)) - 1))]
        turn = self._turn()
        if turn == 0:
            return [self._plan[0]]
        return [] if turn is None or any_due else [self._next_tile()]

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
        for box in face_search.strongest(found):
            mesh = mesh_in_box(image, box, self._landmarker)
            if mesh is not None and not any(is_same(mesh.box_xyxy, other.box_xyxy) for other in faces):
                faces.append(face_search.scored(mesh, box.score, image))
        faces.sort(key=lambda face: -windows.area(face.box_xyxy))
        return faces[: self._options.max_faces]


def _centre(box_xyxy: FloatArray) -> FloatArray:
    return (box_xyxy[:2] + box_xyxy[2:]) / 2.0
