"""Sources that need no camera: a video file in real time, and a moving pattern."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np

from idm_rt.media.video_reader import DecodedFrame, VideoReader
from idm_rt.timing import Clock
from idm_rt.types import RgbImage

_LATE_S = 0.1  # pictures later than this are left out: the file must not fall behind real time
_USUAL_S = 1.0 / 30.0

Wait = Callable[[float], bool]  # wait so many seconds; True if waiting must end


class FileSource:
    """A video file, played in real time by its own time stamps, over and over if asked."""

    def __init__(self, path: Path, *, loop: bool, clock: Clock, wait: Wait) -> None:
        """Open it.

        Args:
            loop: begin again at its end.
            clock: monotonic seconds.
            wait: waits; ``threading.Event.wait`` of the event that ends the source.

        Raises:
            MediaError: it is no video that can be read.
        """
        self._path, self._loop, self._clock, self._wait = path, loop, clock, wait
        self._reader = VideoReader(path)
        self._reader.__enter__()
        rate = float(self._reader.info.average_rate or 0.0)
        self.interval_s = 1.0 / rate if 0.2 <= rate <= 240.0 else _USUAL_S
        self._frames = self._played()

    def read(self) -> RgbImage | None:
        """The next picture when its time has come; None at the end.

        Raises:
            MediaError: the file went away between two rounds.
        """
        return next(self._frames, None)

    def close(self) -> None:
        """Release the file."""
        self._reader.close()

    def _played(self) -> Iterator[RgbImage]:
        start_s, end_s = self._clock(), 0.0
        while True:
            first_s: float | None = None
            for frame in self._reader:
                first_s = frame.time_s if first_s is None else first_s
                at_s = start_s + frame.time_s - first_s
                end_s = at_s + max(self.interval_s, _duration_s(frame))
                wait_s = at_s - self._clock()
                if wait_s > 0 and self._wait(wait_s):
                    return
                if wait_s > -_LATE_S:
                    yield frame.image
            if not self._loop:
                self._wait(max(0.0, end_s - self._clock()))
                return
            self._reader.close()
            self._reader = VideoReader(self._path)
            self._reader.__enter__()
            start_s = max(end_s, self._clock() - _LATE_S)


def _duration_s(frame: DecodedFrame) -> float:
    return float(frame.duration) * float(frame.time_base)


class PatternSource:
    """A moving pattern: shows at a glance whether the picture is alive, in order and the right way round."""

    def __init__(self, size: tuple[int, int], fps: float, *, clock: Clock, stop: threading.Event) -> None:
        """``size``: (width, height) px. ``stop``: ends the waiting."""
        self.interval_s = 1.0 / fps
        self._size, self._clock, self._stop = size, clock, stop
        self._start_s, self._index = clock(), 0
        self._base = _gradient(size)

    def read(self) -> RgbImage | None:
        """The next picture when its time has come."""
        wait_s = self._start_s + self._index * self.interval_s - self._clock()
        if wait_s > 0 and self._stop.wait(wait_s):
            return None
        index = self._index = max(self._index, int((self._clock() - self._start_s) / self.interval_s))
        self._index += 1
        return self._picture(index)

    def close(self) -> None:
        """Nothing to release."""

    def _picture(self, index: int) -> RgbImage:
        width, height = self._size
        image = self._base.copy()
        bar = max(2, width // 40)
        left = (index * max(1, width // 90)) % max(1, width - bar)
        image[:, left : left + bar] = (255, 255, 255)
        step = max(1, height // 8)
        image[:step, : step * 2] = (220, 40, 40)  # upper left: red
        return image


def _gradient(size: tuple[int, int]) -> RgbImage:
    width, height = size
    x = np.linspace(0, 255, width)[None, :].repeat(height, axis=0)
    y = np.linspace(0, 255, height)[:, None].repeat(width, axis=1)
    return np.stack([x * 0.5, y * 0.7, 255.0 - x * 0.6], axis=-1).astype(np.uint8)
