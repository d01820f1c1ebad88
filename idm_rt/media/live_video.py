"""Write pictures that come at a constant rate into a video file, while they come."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, suppress
from fractions import Fraction
from pathlib import Path
from typing import Any, cast

import av
from av.video.stream import VideoStream

from idm_rt.errors import MediaError
from idm_rt.media.files import PendingFile, os_errors
from idm_rt.media.video_target import video_target
from idm_rt.types import RgbImage

_FAST = {"preset": "ultrafast", "tune": "zerolatency"}  # the restorer needs the processor more than the file does


class LiveVideoFile:
    """A video file of constant rate. It appears under its name when it is closed. For one thread."""

    def __init__(self, path: Path, size: tuple[int, int], fps: float) -> None:
        """Open it.

        Args:
            path: its suffix chooses the container, see ``video_target``.
            size: (width, height) px, even.
            fps: pictures per second.

        Raises:
            MediaError: unsupported suffix, or the file cannot be written.
        """
        target = video_target(path)
        self.name = str(path)
        self._pending, self._path = PendingFile(path), path
        self._frames = 0
        self._container: av.container.OutputContainer | None = None
        rate = Fraction(fps).limit_denominator(1001)
        with _writing(path):
            self._container = av.open(
                str(self._pending.temporary.absolute()),
                mode="w",
                format=target.container,
                container_options=target.muxer_options,
            )
            self._stream = cast(VideoStream, self._container.add_stream(target.codec, rate=rate))
            self._stream.options = {**target.options, **(_FAST if target.codec == "libx264" else {})}
            self._stream.width, self._stream.height = size
            self._stream.pix_fmt = "yuv420p"
            self._stream.time_base = self._stream.codec_context.time_base = 1 / rate
            self._container.start_encoding()  # what cannot be written fails now

    def write(self, image: RgbImage, tick: int, count: int) -> None:
        """Store a picture, (H, W, 3) uint8 RGB, for the ``count`` ticks from ``tick`` on.

        Raises:
            MediaError: the disk is full, or the encoder failed.
        """
        frame = av.VideoFrame.from_ndarray(image, format="rgb24").reformat(format="yuv420p")
        frame.time_base = self._stream.codec_context.time_base
        with _writing(self._path):
            for pts in range(tick, tick + count):
                frame.pts = pts
                self._mux(frame)
                self._frames += 1

    def close(self) -> None:
        """Finish the file and give it its name; without a picture there is none. Harmless when repeated.

        Raises:
            MediaError: it cannot be finished.
        """
        container, self._container = self._container, None
        if container is None:
            return
        try:
            with _writing(self._path):
                if self._frames:
                    for packet in self._stream.encode(None):
                        container.mux(packet)
                container.close()
            if self._frames:
                self._pending.commit()
        finally:
            with suppress(OSError, av.FFmpegError):
                container.close()
            self._pending.discard()

    def _mux(self, frame: Any) -> None:
        assert self._container is not None, "the file is closed"
        for packet in self._stream.encode(frame):
            self._container.mux(packet)


@contextmanager
def _writing(path: Path) -> Iterator[None]:
    try:
        with os_errors(path):
            yield
    except av.FFmpegError as error:
        raise MediaError(f"cannot write {path}: the encoder refused ({error.strerror}); try another suffix") from error
