"""What a virtual camera is told, and what it tells: controls, states, numbers. Plain values."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from enum import StrEnum
from typing import Any

from idm_rt.live_records import LiveControls, LiveStats

MAX_SIDE_PX = 4096
MAX_FPS = 120.0


@dataclass(frozen=True, slots=True)
class CameraControls:
    """What the user may change while the camera runs."""

    live: LiveControls = field(default_factory=LiveControls)  # on/off, steps, strength
    compare: bool = False  # show the original and the result side by side


@dataclass(frozen=True, slots=True)
class CameraOptions:
    """How the virtual camera behaves. Times in seconds."""

    size: tuple[int, int] = (1280, 720)  # (width, height) px of the output; even numbers
    fps: float = 30.0  # of the output, kept whatever the source does
    stale_after_s: float = 0.5  # a picture older than this is replaced by a placeholder
    hang_after_s: float = 10.0  # a source inside one call for this long is opened anew; long, as machines may be busy
    max_lost: int = 2  # such calls that may be left to themselves at a time
    max_ticks: int | None = None  # end after so many pictures; None = go on

    def __post_init__(self) -> None:
        width, height = self.size
        if not (2 <= width <= MAX_SIDE_PX and 2 <= height <= MAX_SIDE_PX) or width % 2 or height % 2:
            raise ValueError(f"size is {width}x{height}, expected even numbers from 2 to {MAX_SIDE_PX}")
        if not 1.0 <= self.fps <= MAX_FPS:
            raise ValueError(f"fps is {self.fps!r}, expected 1 to {MAX_FPS:g}")
        if not min(self.stale_after_s, self.hang_after_s) > 0 or self.max_lost < 0:
            raise ValueError("expected stale_after_s and hang_after_s above 0, max_lost of 0 or more")


class SourceStatus(StrEnum):
    """How the source is."""

    OPENING = "opening"  # not seen yet
    LIVE = "live"
    LOST = "lost"  # was there, or could not be opened; tried again
    ENDED = "ended"  # a file that is not looped came to its end
    CLOSED = "closed"


@dataclass(frozen=True, slots=True)
class SourceState:
    """A snapshot of the source."""

    status: SourceStatus = SourceStatus.OPENING
    error: str | None = None  # why it is lost, one line
    attempt: int = 0  # tries to open it since it was last seen
    losses: int = 0  # how often it was lost after it had been seen
    frames: int = 0  # frames it gave
    size: tuple[int, int] | None = None  # (width, height) px of its last frame
    interval_s: float = 1.0 / 30.0  # nominal distance of its frames


class Shown(StrEnum):
    """What a picture of the output is."""

    ENHANCED = "enhanced"
    ORIGINAL = "original"  # switched off, or the engine has no part in it at present
    PLACEHOLDER = "placeholder"  # no fresh picture from the source


@dataclass(frozen=True, slots=True)
class OutputStats:
    """What went out so far."""

    ticks: int  # pictures due
    written: int  # pictures handed to the sink, one per tick unless the sink or this machine was late
    missed: int  # ticks that came too late to be served
    shown: dict[str, int]  # pictures written, by ``Shown``
    sink_losses: int  # how often the sink failed and was opened anew
    sink_error: str | None  # why the sink is not open at present
    delay_ms: dict[str, float]  # capture to sink of the newest pictures: count, mean_ms, p50_ms, p95_ms, p99_ms
    fps: float  # measured over the last seconds


@dataclass(frozen=True, slots=True)
class CameraStatus:
    """A snapshot of everything."""

    controls: CameraControls
    source: SourceState
    output: OutputStats
    worker: LiveStats
    engine_error: str | None  # why no engine is open, if so

    def to_dict(self) -> dict[str, Any]:
        """Plain values, ready for JSON."""
        return asdict(self)
