"""The public face of the library: pictures in, pictures out, faults turned into bypass."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from types import TracebackType
from typing import Self

from idm_rt.blending import TemporalBlender
from idm_rt.compositing import CompositeOptions
from idm_rt.config import EnhancerConfig
from idm_rt.errors import ConfigError, IdmError
from idm_rt.model_store import find_landmarker
from idm_rt.pipeline import Pipeline, PipelineResult
from idm_rt.restorer import Restorer, open_restorer
from idm_rt.timing import Clock, StageTimer
from idm_rt.tracking import FaceTracker, TrackerOptions, open_tracker
from idm_rt.types import FaceTrack, Frame, RgbImage, check_rgb

log = logging.getLogger(__name__)

REOPEN_AFTER_S = 2.0  # a stage that keeps failing is opened anew, at most this often


@dataclass(slots=True)
class EnhancerCounts:
    """What happened so far."""

    frames: int = 0
    frames_with_faces: int = 0
    faces: int = 0  # summed over frames
    restored: int = 0  # faces that went through the network, summed over frames
    scene_cuts: int = 0
    bypassed: dict[str, int] = field(default_factory=dict)  # frames shown as they were, by cause


@dataclass(frozen=True, slots=True)
class EnhancedFrame:
    """The outcome of the newest frame."""

    tracks: tuple[FaceTrack, ...] = ()
    scene_cut: bool = False
    restored: int = 0  # faces that went through the network
    bypassed: str | None = None  # why the original picture was shown, None if it was not


def tracker_for(config: EnhancerConfig) -> FaceTracker:
    """The face tracker that a configuration asks for."""
    options = TrackerOptions(max_faces=config.max_faces, min_face_px=config.min_face_px, video=config.temporal)
    return open_tracker(find_landmarker(config.landmarker), options, threads=config.threads)


def restorer_for(config: EnhancerConfig) -> Restorer:
    """The restorer that a configuration asks for.

    Raises:
        ConfigError: the model was not trained for so many steps.
    """
    restorer = open_restorer(config.model, config.engine, config.threads, config.require_gpu, config.precision)
    offered = restorer.manifest.steps
    if config.steps not in offered:
        restorer.close()
        raise ConfigError(
            f"steps is {config.steps}; model {restorer.manifest.name} offers {', '.join(map(str, offered))}"
        )
    return restorer


class Enhancer:
    """Restores the faces of a stream of pictures.

    One stream and one thread at a time. A fault in a stage never reaches the caller of ``process``: the original
    picture is returned, the fault is counted and logged once per cause, and the stages are opened anew when it lasts.
    """

    def __init__(
        self,
        config: EnhancerConfig | None = None,
        *,
        timer: StageTimer | None = None,
        clock: Clock = time.monotonic,
        make_tracker: Callable[[EnhancerConfig], FaceTracker] = tracker_for,
        make_restorer: Callable[[EnhancerConfig], Restorer] = restorer_for,
    ) -> None:
        """Open the models.

        Raises:
            ModelError: a model file is missing or corrupt.
            EngineError: the engine cannot be had.
        """
        self.config = config or EnhancerConfig()
        self.timer = timer or StageTimer()
        self.counts = EnhancerCounts()
        self.last = EnhancedFrame()
        self._clock, self._make_tracker, self._make_restorer = clock, make_tracker, make_restorer
        self._faulty_since: float | None = None
        self._open()

    def _open(self) -> None:
        config = self.config
        self.restorer = self._make_restorer(config)
        try:
            self.tracker = self._make_tracker(config)
        except BaseException:
            self.restorer.close()
            raise
        options = CompositeOptions(
            min_face_px=config.min_face_px,
            fade_in_frames=CompositeOptions().fade_in_frames if config.temporal else 0,
        )
        blender = TemporalBlender() if config.temporal else None
        self._pipeline = Pipeline(self.tracker, self.restorer, blender, options, self.timer)

    def process(self, image: RgbImage, timestamp_ms: float) -> RgbImage:
        """Restore the faces of one picture.

        Args:
            image: (H, W, 3) uint8 RGB; never changed.
            timestamp_ms: when it is shown; should rise from picture to picture.

        Returns:
            (H, W, 3) uint8 RGB. Pixels outside the faces equal the input bit for bit; the very same array is returned
            when nothing is changed (no face, strength 0, or a fault: see ``last.bypassed``).

        Raises:
            TypeError, ValueError: not such a picture.
        """
        return self.process_frame(Frame(check_rgb(image)), timestamp_ms).image

    @property
    def offered_steps(self) -> tuple[int, ...]:
        """The numbers of steps that the opened model was trained for."""
        return tuple(self.restorer.manifest.steps)

    def process_frame(
        self,
        frame: Frame,
        timestamp_ms: float,
        *,
        steps: int | None = None,
        strength: float | None = None,
        carry: bool = False,
    ) -> Frame:
        """The same for a ``Frame``; pts and time_base are kept.

        Args:
            frame: the picture; never changed.
            timestamp_ms: when it is shown; should rise.
            steps: for this frame, one of ``offered_steps``; None = as configured.
            strength: for this frame, 0..1; None = as configured.
            carry: skip the network in this frame and move each face's last correction along with it.

        Raises:
            ValueError: a strength outside 0..1, or ``carry`` where the configuration is not temporal.
        """
        steps = self.config.steps if steps is None else steps
        strength = self.config.strength if strength is None else strength
        if not 0.0 <= strength <= 1.0:
            raise ValueError(f"strength is {strength!r}, expected 0..1")
        if carry and not self.config.temporal:
            raise ValueError("carry is True, expected a configuration with temporal=True")
        self.counts.frames += 1
        if strength == 0.0:
            self.last = EnhancedFrame()
            return frame
        try:
            with self.timer.stage("frame"):
                result = self._pipeline.process(frame, timestamp_ms, steps, strength, carry)
        except Exception as error:  # any fault means bypass: a call must go on
            return self._bypass(frame, error)
        self._faulty_since = None
        return self._count(result)

    def _count(self, result: PipelineResult) -> Frame:
        self.counts.faces += len(result.tracks)
        self.counts.restored += result.restored
        self.counts.frames_with_faces += bool(result.tracks)
        self.counts.scene_cuts += result.scene_cut
        self.last = EnhancedFrame(tuple(result.tracks), result.scene_cut, result.restored)
        return result.frame

    def _bypass(self, frame: Frame, error: Exception) -> Frame:
        cause = f"{type(error).__name__}: {error}"
        if cause not in self.counts.bypassed:
            known = isinstance(error, IdmError)
            log.warning("showing the original picture: %s", cause, exc_info=None if known else error)
        self.counts.bypassed[cause] = self.counts.bypassed.get(cause, 0) + 1
        self.last = EnhancedFrame(bypassed=cause)
        self._recover()
        return frame

    def _recover(self) -> None:
        """Start the stages afresh; a fault that lasts has them opened anew, now and then."""
        now = self._clock()
        if self._faulty_since is None:
            self._faulty_since = now
        elif now - self._faulty_since >= REOPEN_AFTER_S:
            self._faulty_since = now
            self._reopen()
            return
        try:
            self._pipeline.reset()
        except Exception:  # a stage that cannot even be reset is replaced at the next attempt
            log.debug("reset failed", exc_info=True)

    def _reopen(self) -> None:
        self.close()
        try:
            self._open()
        except Exception as error:  # stay in bypass and try again later
            log.warning("could not open the models again: %s", error)

    def warm_up(self) -> None:
        """Pay for lazy set-up now rather than in the first frames."""
        self.restorer.warm_up()

    def reset(self) -> None:
        """Forget every face: the next picture starts a new stream. Counts and times stay."""
        self._pipeline.reset()

    def close(self) -> None:
        """Free the models; calling it twice is fine."""
        self.tracker.close()
        self.restorer.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()
