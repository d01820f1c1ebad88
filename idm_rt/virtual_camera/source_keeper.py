"""Keeps a source of pictures open: reads it on a thread of its own, opens it anew when it is lost or hangs."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Protocol

from idm_rt.errors import IdmError
from idm_rt.timing import Clock
from idm_rt.types import RgbImage
from idm_rt.virtual_camera.backoff import Backoff
from idm_rt.virtual_camera.records import SourceState, SourceStatus

log = logging.getLogger(__name__)

_OPEN_FACTOR = 3.0  # opening a camera may take longer than a picture: the system may ask the user
_EARLY = 0.6  # of the output's interval: frames that come closer than this are passed over


class Source(Protocol):
    """Something that gives pictures at its own pace. Used by one thread."""

    interval_s: float  # nominal distance of its pictures

    def read(self) -> RgbImage | None:
        """Wait for the next picture, (H, W, 3) uint8 RGB; None at the end.

        Raises:
            MediaError: it is lost.
        """
        ...

    def close(self) -> None:
        """Release it."""
        ...


OpenSource = Callable[[threading.Event], Source]  # gets an event that is set when waiting must end


@dataclass(slots=True, eq=False)
class _Attempt:
    """One thread with its source."""

    retired: threading.Event = field(default_factory=threading.Event)
    give_up_s: float | None = None  # set while inside ``open`` or ``read``: when it is taken for lost
    thread: threading.Thread | None = None


class SourceKeeper:
    """Reads a source for as long as it lives.

    A source that raises is closed and opened anew after a pause that grows with every failure in a row. One that
    hangs inside a call, as drivers do when a cable is pulled, cannot be ended: ``check`` leaves that thread to itself
    and starts another; at most ``max_lost`` of them exist at a time.
    """

    def __init__(
        self,
        open_source: OpenSource,
        deliver: Callable[[RgbImage, float], None],
        *,
        clock: Clock,
        output_fps: float,
        hang_after_s: float,
        max_lost: int = 2,
        backoff: Backoff | None = None,
    ) -> None:
        """Nothing is opened yet.

        Args:
            open_source: opens it or raises ``MediaError``; called on the keeper's thread.
            deliver: gets each picture and when it was captured; called on the keeper's thread, must not wait.
            clock: monotonic seconds.
            output_fps: pictures that come much faster are passed over.
            hang_after_s: a call this long is taken for lost.
            max_lost: threads that may be lost at a time.
            backoff: pauses between attempts; None = defaults.
        """
        self._open_source, self._deliver, self._clock = open_source, deliver, clock
        self._hang_after_s, self._max_lost = hang_after_s, max_lost
        self._shortest_s = _EARLY / output_fps
        self._backoff = backoff or Backoff()
        self._changed = threading.Condition()
        self._state = SourceState()
        self._attempt: _Attempt | None = None
        self._lost: list[_Attempt] = []
        self._stopping = False

    @property
    def state(self) -> SourceState:
        """A snapshot."""
        return self._state

    def start(self) -> None:
        """Start the thread; returns at once."""
        with self._changed:
            self._start_attempt()

    def wait_outcome(self, timeout_s: float) -> SourceState:
        """Wait until the first picture has come or the first attempt has failed, or the time is over."""
        with self._changed:
            self._changed.wait_for(lambda: self._state.frames > 0 or self._state.error is not None, timeout_s)
            return self._state

    def check(self, now_s: float) -> None:
        """Replace a thread that is lost in a call. Called now and then, from any thread; never waits."""
        with self._changed:
            attempt = self._attempt
            if self._stopping or (attempt is not None and not _hangs(attempt, now_s)):
                return
            if attempt is not None:
                self._note_loss("it does not answer", opened=True)
                attempt.retired.set()
                self._lost.append(attempt)
                self._attempt = None
            self._lost = [lost for lost in self._lost if lost.thread is not None and lost.thread.is_alive()]
            if len(self._lost) < self._max_lost:
                self._start_attempt()

    def close(self, timeout_s: float = 1.0) -> bool:
        """End the thread and wait for it; False if it is still inside a call (it is a daemon)."""
        with self._changed:
            self._stopping = True
            attempts = [attempt for attempt in (self._attempt, *self._lost) if attempt is not None]
            for attempt in attempts:
                attempt.retired.set()
            self._set(status=SourceStatus.CLOSED)
        for attempt in attempts[:1]:
            if attempt.thread is not None:
                attempt.thread.join(timeout_s)
        return not any(attempt.thread is not None and attempt.thread.is_alive() for attempt in attempts)

    def _start_attempt(self) -> None:
        attempt = _Attempt()
        attempt.thread = threading.Thread(target=self._run, args=(attempt,), name="idm-rt camera", daemon=True)
        self._attempt = attempt
        attempt.thread.start()

    def _run(self, attempt: _Attempt) -> None:
        """The thread: open, read until lost, pause, again."""
        while not attempt.retired.is_set():
            opened_s: float | None = None
            try:
                source = self._call(attempt, lambda: self._open_source(attempt.retired))
                opened_s = self._clock()
                self._opened(attempt, source)
                if self._read_all(attempt, source):
                    return
            except (IdmError, OSError) as error:
                self._lost_it(attempt, str(error), opened_s)
            except Exception as error:  # a driver's binding may raise anything; the call goes on with a placeholder
                log.debug("the source raised", exc_info=True)
                self._lost_it(attempt, f"{type(error).__name__}: {error}", opened_s)
            else:
                continue
            worked_s = 0.0 if opened_s is None else self._clock() - opened_s
            attempt.retired.wait(self._backoff.failed(worked_s))

    def _call(self, attempt: _Attempt, call: Callable[[], Source]) -> Source:
        attempt.give_up_s = self._clock() + _OPEN_FACTOR * self._hang_after_s
        try:
            return call()
        finally:
            attempt.give_up_s = None

    def _read_all(self, attempt: _Attempt, source: Source) -> bool:
        """Deliver pictures until the source ends (True), or this thread is no longer wanted (False)."""
        last_s = float("-inf")
        try:
            while not attempt.retired.is_set():
                attempt.give_up_s = self._clock() + self._hang_after_s
                image = source.read()
                attempt.give_up_s = None
                if image is None:
                    self._finish(attempt)
                    return True
                now_s = self._clock()
                if now_s - last_s >= self._shortest_s and self._seen(attempt, image):
                    last_s = now_s
                    self._deliver(image, now_s)
        finally:
            attempt.give_up_s = None
            source.close()
        return False

    def _opened(self, attempt: _Attempt, source: Source) -> None:
        with self._changed:
            if not attempt.retired.is_set():
                self._set(interval_s=source.interval_s)

    def _seen(self, attempt: _Attempt, image: RgbImage) -> bool:
        """Note a picture; False if it comes from a thread that was given up."""
        with self._changed:
            if attempt.retired.is_set():
                return False
            if self._state.status is SourceStatus.LOST:
                log.info("the camera is back")
            size = image.shape[1], image.shape[0]
            self._set(status=SourceStatus.LIVE, error=None, attempt=0, frames=self._state.frames + 1, size=size)
            return True

    def _finish(self, attempt: _Attempt) -> None:
        with self._changed:
            if not attempt.retired.is_set():
                self._set(status=SourceStatus.ENDED)

    def _lost_it(self, attempt: _Attempt, error: str, opened_s: float | None) -> None:
        with self._changed:
            if not attempt.retired.is_set():
                self._note_loss(error, opened=opened_s is not None)

    def _note_loss(self, error: str, *, opened: bool) -> None:
        """The lock is held. Logged when the picture goes, not at every attempt after it.

        Nor at the very first attempt: whoever waits for its outcome says what was wrong.
        """
        error = " ".join(error.split())
        was_live = self._state.status is SourceStatus.LIVE
        again = self._state.attempt == 1 and not self._state.frames
        if was_live or again or (self._state.attempt and error != self._state.error):
            log.warning("no picture from the source, trying again: %s", error)
        self._set(
            status=SourceStatus.LOST,
            error=error,
            attempt=self._state.attempt + 1,
            losses=self._state.losses + (was_live and opened),
        )

    def _set(self, **changes: object) -> None:
        """The lock is held."""
        self._state = replace(self._state, **changes)  # type: ignore[arg-type]
        self._changed.notify_all()


def _hangs(attempt: _Attempt, now_s: float) -> bool:
    give_up_s = attempt.give_up_s
    return give_up_s is not None and now_s > give_up_s
