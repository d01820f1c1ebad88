"""From what the user names to an output that can be opened."""

from __future__ import annotations

import os
import stat
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from idm_rt.errors import ConfigError, MediaError
from idm_rt.media.files import check_output
from idm_rt.timing import Clock
from idm_rt.virtual_camera.sinks import NullSink, Sink, SinkKeeper

KINDS = ("device", "file", "pipe", "none")


@dataclass(frozen=True, slots=True)
class SinkSpec:
    """Where the pictures go."""

    kind: str = "device"  # one of KINDS
    device: str | None = None  # the virtual camera; None = the first that can be had
    path: Path | None = None  # of a file or named pipe; None for a pipe = standard output
    raw_format: str = "y4m"  # of a pipe, see RAW_FORMATS

    def __post_init__(self) -> None:
        if self.kind not in KINDS or (self.kind == "file") != (self.path is not None and self.kind != "pipe"):
            raise ValueError(f"expected a kind of {KINDS}, and a path for a file or pipe alone; found {self}")


def parse_sink(text: str, *, raw_format: str = "y4m", overwrite: bool = False, source: Path | None = None) -> SinkSpec:
    """``device``, ``device:NAME``, ``none``, ``-``, a named pipe or a file; refused before any work.

    Args:
        raw_format: of a pipe.
        overwrite: replace a file that exists.
        source: the source's file, which must not be the output.

    Raises:
        ConfigError: pipes are not supported here.
        MediaError: the file cannot be written, exists already, or has an unknown suffix.
    """
    kind, colon, name = text.partition(":")
    if kind == "device" and (name or not colon):
        return SinkSpec("device", device=name or None)
    if text.startswith("/dev/video"):
        return SinkSpec("device", device=text)
    if text == "none":
        return SinkSpec("none")
    path = None if text == "-" else Path(text)
    if path is None or _is_pipe(path):
        if os.name != "posix":
            raise ConfigError("pipes are supported on Linux and macOS alone; name a file or a device")
        return SinkSpec("pipe", path=path, raw_format=raw_format)
    _check_suffix(path)
    check_output(path, source=source, overwrite=overwrite)
    return SinkSpec("file", path=path)


def sink_opener(
    spec: SinkSpec, size: tuple[int, int], fps: float, clock: Clock = time.monotonic
) -> Callable[[], SinkKeeper]:
    """The function that ``VirtualCamera`` calls to open the output.

    Args:
        size: (width, height) px.
        fps: pictures per second.
    """

    def open_sink() -> Sink:
        return _open(spec, size, fps)

    return lambda: SinkKeeper(open_sink, clock, reopens=spec.kind == "device")


def _open(spec: SinkSpec, size: tuple[int, int], fps: float) -> Sink:
    if spec.kind == "none":
        return NullSink()
    if spec.kind == "device":
        from idm_rt.virtual_camera.device_sink import DeviceSink

        return DeviceSink(size, fps, spec.device)
    from idm_rt.virtual_camera.raw_sinks import RAW_SUFFIXES, PipeSink, RawFileSink, RawFormat

    if spec.kind == "pipe":
        return PipeSink(spec.path, RawFormat(spec.raw_format, size, fps))
    assert spec.path is not None
    raw = RAW_SUFFIXES.get(spec.path.suffix.lower())
    if raw is not None:
        return RawFileSink(spec.path, RawFormat(raw, size, fps))
    from idm_rt.media.live_video import LiveVideoFile

    return LiveVideoFile(spec.path, size, fps)


def _is_pipe(path: Path) -> bool:
    try:
        return stat.S_ISFIFO(path.stat().st_mode)
    except OSError:
        return False


def _check_suffix(path: Path) -> None:
    from idm_rt.media.video_target import VIDEO_SUFFIXES
    from idm_rt.virtual_camera.raw_sinks import RAW_SUFFIXES

    if path.suffix.lower() not in (*RAW_SUFFIXES, *VIDEO_SUFFIXES):
        raise MediaError(
            f"the output {path} is no kind of file that can be written; use one of "
            f"{', '.join((*RAW_SUFFIXES, *VIDEO_SUFFIXES))}, or device, device:NAME, none, - or a named pipe"
        )
