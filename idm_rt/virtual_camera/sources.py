"""From what the user names to a source that can be opened, again and again."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from idm_rt.errors import ConfigError
from idm_rt.media.files import check_input
from idm_rt.timing import Clock
from idm_rt.virtual_camera.source_keeper import OpenSource, Source

KINDS = ("camera", "screen", "pattern", "file")


@dataclass(frozen=True, slots=True)
class SourceSpec:
    """What is to be shown."""

    kind: str  # one of KINDS
    name: str | None = None  # of the camera or screen; None = the first
    path: Path | None = None  # of a file
    loop: bool = True  # of a file: begin again at its end

    def __post_init__(self) -> None:
        if self.kind not in KINDS or (self.kind == "file") != (self.path is not None):
            raise ValueError(f"expected a kind of {KINDS}, and a path for a file alone; found {self}")


def parse_source(text: str, *, loop: bool, sample: Callable[[], Path]) -> SourceSpec:
    """``camera``, ``camera:NAME-or-number``, ``screen``, ``screen:DISPLAY``, ``test``, ``pattern``, or a file's path.

    Args:
        loop: begin a file again at its end.
        sample: gives the file behind ``test``.

    Raises:
        ConfigError: it is nothing of the kind.
    """
    kind, colon, name = text.partition(":")
    if kind in ("camera", "screen") and (name or not colon):
        return SourceSpec(kind, name or None)
    if text == "pattern":
        return SourceSpec(text)
    if text == "test":
        return SourceSpec("file", path=sample(), loop=loop)
    if text.startswith("/dev/"):
        return SourceSpec("camera", text)
    path = Path(text)
    if not path.exists():
        raise ConfigError(
            f"the source {text!r} is no file that exists; name a file, or camera, camera:NAME, screen, test or pattern"
        )
    check_input(path)
    return SourceSpec("file", path=path, loop=loop)


def opener_of(spec: SourceSpec, size: tuple[int, int] | None, fps: float, clock: Clock = time.monotonic) -> OpenSource:
    """The function that a ``SourceKeeper`` calls to open it.

    Args:
        size: (width, height) px to ask a camera for, and of the pattern; None = the camera's own.
        fps: pictures per second to ask for.
    """

    def open_source(stop: threading.Event) -> Source:
        if spec.kind in ("camera", "screen"):
            return _open_capture(spec, size, fps)
        from idm_rt.virtual_camera.file_source import FileSource, PatternSource

        if spec.kind == "pattern":
            return PatternSource(size or (1280, 720), fps, clock=clock, stop=stop)
        assert spec.path is not None
        return FileSource(spec.path, loop=spec.loop, clock=clock, wait=stop.wait)

    return open_source


def _open_capture(spec: SourceSpec, size: tuple[int, int] | None, fps: float) -> Source:
    from idm_rt.media.capture import Capture, camera_target, list_cameras, screen_target

    if spec.kind == "screen":
        return Capture(screen_target(spec.name), None, fps)
    return Capture(camera_target(spec.name, list_cameras()), size, fps)


def natural_size(spec: SourceSpec) -> tuple[int, int] | None:
    """(width, height) px of a file, made even; None for what is not known before it is opened.

    Raises:
        MediaError: it is no video that can be read.
    """
    if spec.path is None:
        return None
    from idm_rt.media.video_reader import VideoReader

    with VideoReader(spec.path) as reader:
        width, height = reader.info.upright_size
    return max(2, width // 2 * 2), max(2, height // 2 * 2)
