"""What takes the pictures of a virtual camera, and how one that fails is opened anew."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Protocol

from idm_rt.errors import IdmError, MediaError
from idm_rt.timing import Clock
from idm_rt.types import RgbImage
from idm_rt.virtual_camera.backoff import Backoff

log = logging.getLogger(__name__)


class Sink(Protocol):
    """A device, a file or a pipe. Used by one thread."""

    name: str  # for people

    def write(self, image: RgbImage, tick: int, count: int) -> None:
        """Take a picture.

        Args:
            image: (H, W, 3) uint8 RGB in the output's size; not to be kept or changed.
            tick: its place in time, in output intervals.
            count: how many ticks it stands for; a file stores so many, a device shows it once.

        Raises:
            MediaError: it failed, and may work again if opened anew.
            OutputEnded: nobody takes pictures any more.
        """
        ...

    def close(self) -> None:
        """Finish and release it; harmless when repeated.

        Raises:
            MediaError: a file could not be finished.
        """
        ...


class OutputEnded(Exception):
    """The reader of a pipe went away for good: nothing is left to do, which is no fault."""


class NullSink:
    """Takes nothing: for a preview alone."""

    name = "no output"

    def write(self, image: RgbImage, tick: int, count: int) -> None:
        """Forget the picture."""

    def close(self) -> None:
        """Nothing to release."""


class SinkKeeper:
    """A sink that is opened anew, with growing pauses, when it fails; a device may be unloaded and come back.

    A sink that is not ``reopens`` (a file) fails for good: its error is raised.
    """

    def __init__(self, open_sink: Callable[[], Sink], clock: Clock, *, reopens: bool) -> None:
        """Opens the sink.

        Raises:
            MediaError, ConfigError: it cannot be opened.
        """
        self._open_sink, self._clock, self._reopens = open_sink, clock, reopens
        self._backoff = Backoff()
        self._sink: Sink | None = open_sink()
        self._opened_s, self._retry_s = clock(), 0.0
        self.name = self._sink.name
        self.losses = 0
        self.error: str | None = None

    def write(self, image: RgbImage, tick: int, count: int) -> bool:
        """Hand over a picture; False if the sink is not open at present.

        Raises:
            MediaError: it failed for good.
            OutputEnded: nobody takes pictures any more.
        """
        if self._sink is None and not self._reopen():
            return False
        assert self._sink is not None
        try:
            self._sink.write(image, tick, count)
        except MediaError as error:
            if not self._reopens:
                raise
            self._failed(error)
            return False
        return True

    def close(self) -> None:
        """Finish and release the sink.

        Raises:
            MediaError: a file could not be finished.
        """
        sink, self._sink = self._sink, None
        if sink is not None:
            sink.close()

    def _reopen(self) -> bool:
        if self._clock() < self._retry_s:
            return False
        try:
            self._sink = self._open_sink()
        except IdmError as error:
            self._plan_retry(error, 0.0)
            return False
        self._opened_s, self.error = self._clock(), None
        log.warning("the output %s is open again", self.name)
        return True

    def _failed(self, error: MediaError) -> None:
        log.warning("the output is lost, trying again: %s", error)
        self.losses += 1
        sink, self._sink = self._sink, None
        self._plan_retry(error, self._clock() - self._opened_s)
        if sink is not None:
            try:
                sink.close()
            except (MediaError, OSError, RuntimeError):  # it is broken already
                log.debug("the output could not be closed", exc_info=True)

    def _plan_retry(self, error: IdmError, worked_s: float) -> None:
        self.error = str(error)
        self._retry_s = self._clock() + self._backoff.failed(worked_s)
