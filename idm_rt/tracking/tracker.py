"""Faces with an identity: stable ids, birth and death, smoothing, scene cuts."""

from __future__ import annotations

from dataclasses import dataclass, field
from types import TracebackType
from typing import Self

from idm_rt.errors import ConfigError
from idm_rt.tracking import windows
from idm_rt.tracking.finders import FaceFinder
from idm_rt.tracking.matching import match_boxes
from idm_rt.tracking.records import RawFace
from idm_rt.tracking.scene_cut import SceneCutDetector
from idm_rt.tracking.smoothing import OneEuroOptions
from idm_rt.tracking.track import Track
from idm_rt.types import FaceTrack, RgbImage, check_rgb

_INCUMBENT = 1.2  # a newcomer must be this much larger (in area) to take a shown face's place
_BIRTH_SIZE = 1.15  # a stream's face must be this much larger than the minimum to be born, not to stay


@dataclass(frozen=True, slots=True)
class TrackerOptions:
    """When a face counts. Scores are 0..1, see ``FaceTracker``."""

    max_faces: int = 4  # faces reported per frame; the largest win
    min_face_px: float = 40.0  # larger side of a face's box; smaller faces are not reported
    video: bool = True  # False: unrelated photos - no memory, no smoothing, no waiting
    birth_score: float = 0.35  # a face needs this to be born
    sure_score: float = 0.6  # with this it is born at once, else when seen in two frames running
    keep_score: float = 0.2  # below this a known face counts as missed
    max_missed: int = 3  # frames a face is carried on unseen, its score fading; then its id ends
    max_step: float = 1.0  # largest change of a face's place and size between frames, in face sizes
    max_overlap: float = 0.6  # part of a face that may lie inside a larger one
    gap_ms: float = 500.0  # after a pause this long landmarks are not smoothed towards the old ones
    smoothing: OneEuroOptions = field(default_factory=OneEuroOptions)

    def __post_init__(self) -> None:
        if not 1 <= self.max_faces <= 32:
            raise ConfigError(f"max_faces is {self.max_faces!r}; choose a whole number from 1 to 32")
        if self.min_face_px < 0:
            raise ConfigError(f"min_face_px is {self.min_face_px!r}; choose a number of pixels, 0 or more")
        if not 0.0 <= self.keep_score <= self.birth_score <= self.sure_score <= 1.0:
            raise ConfigError("expected 0 <= keep_score <= birth_score <= sure_score <= 1; use the defaults")


@dataclass(frozen=True, slots=True)
class TrackingResult:
    """The faces of one frame."""

    tracks: list[FaceTrack]  # largest first
    scene_cut: bool  # this frame starts a new shot: nothing known before it holds


class FaceTracker:
    """Gives each face of a stream an id that lasts, and steady landmarks.

    The score of a track is the face detector's confidence when it last saw that face whole (renewed a few times per
    second), times the part of the landmarks inside the frame, times how little the mesh changed its shape against
    the frame before. The mesh net reports no quality of its own: a hand before the face shows only as far as it
    disturbs the detector or the mesh. An unseen face is carried on for ``max_missed`` frames with a fading score, so
    that one missed frame is a slight fade and not a flash of the unrestored face.

    Ids are never reused, not after ``reset`` either. Not thread-safe. ``close`` frees the finder's nets.

    Args:
        finder: a ``finders.VideoFaceFinder`` or ``PhotoFaceFinder``, or any ``FaceFinder``.
        options: when a face counts.
        backend: name of what runs the finder's nets.
        backend_reason: why it was chosen.
    """

    def __init__(
        self,
        finder: FaceFinder,
        options: TrackerOptions | None = None,
        *,
        backend: str = "custom",
        backend_reason: str = "given by the caller",
    ) -> None:
        self.backend, self.backend_reason = backend, backend_reason
        self._finder = finder
        self._options = options or TrackerOptions()
        self._cuts = SceneCutDetector()
        self._next_id = 0
        self.reset()

    def reset(self) -> None:
        """Forget every face and the scene; the next frame is a first frame."""
        self._tracks: list[Track] = []
        self._last_ms: float | None = None
        self._dt_ms = 1000.0 / 30.0  # the last plain frame interval
        self._cuts.reset()
        self._finder.reset()

    def close(self) -> None:
        """Free the finder; a second call does nothing."""
        self._finder.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def update(self, image: RgbImage, timestamp_ms: float) -> TrackingResult:
        """Faces of the next frame.

        Args:
            image: (H, W, 3) uint8 RGB; a change of size counts as a scene cut.
            timestamp_ms: when it is shown. Time that stands still or runs back is taken as one plain frame interval.
        """
        check_rgb(image)
        scene_cut = self._options.video and self._cuts.update(image)
        if scene_cut or not self._options.video:
            self._tracks = []
            self._finder.reset()
        dt_ms = self._interval(timestamp_ms)
        seen = self._plausible(self._finder.detect(image, timestamp_ms))
        self._advance(seen, dt_ms)
        return TrackingResult([track.report() for track in self._choose()], scene_cut)

    def _interval(self, timestamp_ms: float) -> float:
        """Milliseconds since the last frame, always positive; a long pause restarts the smoothing."""
        elapsed = timestamp_ms - self._last_ms if self._last_ms is not None else self._dt_ms
        self._last_ms = timestamp_ms
        if elapsed <= 0:
            return self._dt_ms
        if elapsed > self._options.gap_ms:
            for track in self._tracks:
                track.forget_motion()
            return elapsed
        self._dt_ms = elapsed
        return elapsed

    def _plausible(self, faces: list[RawFace]) -> list[RawFace]:
        """Faces that are large and certain enough to be somebody, none inside another."""
        options = self._options
        fit = [
            face
            for face in faces
            if windows.larger_side(face.box_xyxy) >= options.min_face_px and face.score >= options.keep_score
        ]
        return [fit[i] for i in windows.drop_nested([face.box_xyxy for face in fit], options.max_overlap)]

    def _advance(self, seen: list[RawFace], dt_ms: float) -> None:
        """Known faces see their new observation or miss it; what is left over may be born."""
        places = [track.predicted_box(dt_ms) for track in self._tracks]
        pairs = match_boxes(places, [face.box_xyxy for face in seen], self._options.max_step)
        for i, j in pairs:
            self._tracks[i].see(seen[j], dt_ms)
        matched = {i for i, _ in pairs}
        for i, track in enumerate(self._tracks):
            if i not in matched:
                track.miss(dt_ms)
        self._tracks = [track for track in self._tracks if track.missed <= self._allowed_misses(track)]
        used = {j for _, j in pairs}
        for j, face in enumerate(seen):
            if j not in used and self._may_be_born(face):
                self._tracks.append(self._born(face))

    def _allowed_misses(self, track: Track) -> int:
        return self._options.max_missed if track.confirmed else 0

    def _may_be_born(self, face: RawFace) -> bool:
        margin = _BIRTH_SIZE if self._options.video else 1.0
        large = windows.larger_side(face.box_xyxy) >= self._options.min_face_px * margin
        return large and face.score >= self._options.birth_score

    def _born(self, face: RawFace) -> Track:
        at_once = not self._options.video or face.score >= self._options.sure_score
        self._next_id += 1
        return Track(self._next_id - 1, face, confirmed=at_once, smoothing=self._options.smoothing)

    def _choose(self) -> list[Track]:
        """The largest confirmed faces; one that was shown keeps its place against a slightly larger newcomer."""
        confirmed = [track for track in self._tracks if track.confirmed]
        confirmed.sort(key=lambda track: -windows.area(track.box_xyxy) * (_INCUMBENT if track.shown else 1.0))
        for rank, track in enumerate(confirmed):
            track.shown = rank < self._options.max_faces
        return sorted((t for t in confirmed if t.shown), key=lambda track: -windows.area(track.box_xyxy))
