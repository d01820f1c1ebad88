"""Enhancers kept open between sessions, so that one who comes back need not wait for an engine to start."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from typing import TYPE_CHECKING

from idm_rt.timing import StageTimer
from idm_rt.types import Frame
from idm_rt.worker import LiveEnhancer

if TYPE_CHECKING:
    from idm_rt.enhancer import EnhancedFrame

log = logging.getLogger(__name__)


_OPENING_S = 20.0  # longest wait for another one's opening, which may hang


class EnhancerPool:
    """Opens enhancers, and keeps a few that were given back. Thread-safe; ``open`` blocks while an engine starts.

    One is opened at a time: when sessions come and go quickly, one that is given back meanwhile is lent again, where
    each session would else begin an engine of its own and hold its memory.
    """

    def __init__(self, open_enhancer: Callable[[], LiveEnhancer], keep: int = 1) -> None:
        self._open, self._keep = open_enhancer, keep
        self._changed = threading.Condition()
        self._idle: list[LiveEnhancer] = []
        self._opening = 0
        self._closed = False
        self.error: str | None = None  # why the last attempt failed; None after a success
        self.opened = 0

    @property
    def ready(self) -> bool:
        """Whether an enhancer was opened, and the last attempt did not fail."""
        return self.opened > 0 and self.error is None

    def warm(self) -> None:
        """Open one for later. Blocks; a failure is kept in ``error`` and the relay passes pictures on as they are."""
        try:
            self.open().close()
        except Exception as error:  # a missing model or engine: told by /readyz, tried again by each session
            log.warning("the enhancer cannot be opened, pictures pass as they are: %s", error)

    def open(self) -> LiveEnhancer:
        """An enhancer that returns here when it is closed.

        Raises:
            IdmError: it cannot be opened.
        """
        with self._changed:
            self._changed.wait_for(lambda: self._idle or not self._opening, _OPENING_S)
            inner = self._idle.pop() if self._idle else None
            self._opening += inner is None
        if inner is None:
            inner = self._open_new()
        with self._changed:
            self.opened, self.error = self.opened + 1, None
        return _Lent(inner, self)

    def _open_new(self) -> LiveEnhancer:
        try:
            return self._open()
        except Exception as error:
            self.error = f"{type(error).__name__}: {error}"
            raise
        finally:
            with self._changed:
                self._opening -= 1
                self._changed.notify_all()

    def give_back(self, inner: LiveEnhancer, *, healthy: bool) -> None:
        """Take an enhancer back; one that failed last, or is one too many, is closed."""
        reset = getattr(inner, "reset", None)
        with self._changed:
            keep = healthy and reset is not None and not self._closed and len(self._idle) < self._keep
            if keep and reset is not None:
                reset()
                self._idle.append(inner)
                self._changed.notify()
        if not keep:
            inner.close()

    def close(self) -> None:
        """Close those that lie here; those that are lent close when they come back."""
        with self._changed:
            self._closed, idle, self._idle = True, self._idle, []
        for inner in idle:
            inner.close()


class _Lent:
    """An enhancer on loan."""

    def __init__(self, inner: LiveEnhancer, pool: EnhancerPool) -> None:
        self._inner, self._pool = inner, pool
        self._returned = self._failed = False

    @property
    def timer(self) -> StageTimer:
        return self._inner.timer

    @property
    def last(self) -> EnhancedFrame:
        return self._inner.last

    @property
    def offered_steps(self) -> tuple[int, ...]:
        return self._inner.offered_steps

    def process_frame(
        self,
        frame: Frame,
        timestamp_ms: float,
        *,
        steps: int | None = None,
        strength: float | None = None,
        carry: bool = False,
    ) -> Frame:
        self._failed = True  # unless it returns
        made = self._inner.process_frame(frame, timestamp_ms, steps=steps, strength=strength, carry=carry)
        self._failed = self._inner.last.bypassed is not None
        return made

    def close(self) -> None:
        if not self._returned:
            self._returned = True
            self._pool.give_back(self._inner, healthy=not self._failed)
