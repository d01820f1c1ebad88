"""The records of a live stream: its frames on their way, what the user wants, and the counts for any exporter."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field, replace
from enum import StrEnum

from idm_rt.types import Frame

_SAMPLES = 1000  # newest samples behind the percentiles: half a minute at 30 frames per second


class Cause(StrEnum):
    """Why a frame was shown as the camera saw it."""

    OFF = "off"  # switched off by the user
    OPENING = "opening"  # no engine is open (yet, or again)
    GOVERNOR = "governor"  # the ladder's last level: this machine is too slow at present
    BUSY = "busy"  # the engine was overdue with an earlier frame
    LATE = "late"  # waited so long for the engine that it could not be ready in time
    DEADLINE = "deadline"  # the engine was not ready in time
    FAULT = "fault"  # the engine or the face tracker failed


@dataclass(frozen=True, slots=True)
class LiveFrame:
    """A frame as it goes out."""

    frame: Frame  # same pts and time_base as the original
    original: Frame  # as it came in; the very same object where nothing was changed
    bypassed: Cause | None = None  # why it is the original; None if it went through the pipeline
    age_s: float = 0.0  # capture to emit


@dataclass(slots=True, eq=False)
class Job:
    """A frame on its way."""

    number: int  # rises by one per frame
    frame: Frame
    came_s: float  # clock time of its arrival here
    deadline_s: float  # clock time at which the original goes out
    settled: bool = False  # emitted or given up
    began_s: float | None = None  # when the engine took it


@dataclass(frozen=True, slots=True)
class Outcome:
    """What an engine made of a frame."""

    frame: Frame
    work_s: float = 0.0
    network_s: float = 0.0  # part of the work in the restorer
    fault: str | None = None  # the frame is the original because of this error


@dataclass(frozen=True, slots=True)
class LiveControls:
    """What the user may change while the stream runs."""

    enabled: bool = True  # False: every frame goes out as it is, at once
    steps: int = 1  # the governor never takes more
    strength: float = 1.0  # 0..1

    def __post_init__(self) -> None:
        if not 0.0 <= self.strength <= 1.0:
            raise ValueError(f"strength is {self.strength!r}, expected 0..1")
        if self.steps < 1:
            raise ValueError(f"steps is {self.steps!r}, expected 1 or more")


@dataclass(frozen=True, slots=True)
class LiveStats:
    """A snapshot. Every frame that comes in is in the end emitted, dropped or superseded, once."""

    frames_in: int
    frames_out: int  # emitted: restored or as they were
    bypassed: dict[str, int]  # of these, by ``Cause``
    dropped: int  # replaced by a newer one before the engine was free
    superseded: int  # ready only after a newer one had been emitted
    unread: int  # emitted, and replaced by a newer one before the consumer took it
    age_ms: dict[str, float]  # capture to emit, of the newest frames: count, mean_ms, p50_ms, p95_ms, p99_ms
    work_ms: dict[str, float]  # the same for the engine's work on a frame
    stages_ms: dict[str, dict[str, float]]  # the same per stage of the pipeline
    interval_ms: float  # distance of the stream's frames
    level: str  # of the governor
    levels: tuple[str, ...]  # all of them, best first
    steps_down: int
    steps_up: int
    frames_by_level: dict[str, int]
    faults: dict[str, int]  # frames lost to an error, by error
    engine: str  # "opening", "running", "stuck" or "closed"
    opened: int  # enhancers opened so far; more than one means that one was replaced
    threads: int  # engine threads started so far
    abandoned: int  # of these, lost in a call that has not returned yet


@dataclass(slots=True)
class LiveRecords:
    """The counts behind the snapshot; bounded, whatever the stream does. Not thread-safe."""

    frames_in: int = 0
    frames_out: int = 0
    dropped: int = 0
    superseded: int = 0
    opened: int = 0
    bypassed: dict[str, int] = field(default_factory=dict)
    faults: dict[str, int] = field(default_factory=dict)
    ages_ms: deque[float] = field(default_factory=lambda: deque(maxlen=_SAMPLES))
    work_ms: deque[float] = field(default_factory=lambda: deque(maxlen=_SAMPLES))

    def emitted(self, age_s: float, cause: Cause | None) -> None:
        """A frame went out."""
        self.frames_out += 1
        self.ages_ms.append(age_s * 1000.0)
        if cause is not None:
            self.bypassed[cause.value] = self.bypassed.get(cause.value, 0) + 1

    def fault(self, error: str) -> bool:
        """Count an error; True if it is new. At most 32 different ones are told apart: messages may hold numbers."""
        if error not in self.faults and len(self.faults) >= 32:
            error = "other"
        self.faults[error] = self.faults.get(error, 0) + 1
        return self.faults[error] == 1

    def copy(self) -> LiveRecords:
        """The same, for a reader that takes its time."""
        return replace(
            self,
            bypassed=dict(self.bypassed),
            faults=dict(self.faults),
            ages_ms=self.ages_ms.copy(),
            work_ms=self.work_ms.copy(),
        )
