"""Enhances a live stream beside it, on threads of its own; the picture goes on whatever the engine does."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable
from types import TracebackType
from typing import Self

from idm_rt.delivery import Delivery
from idm_rt.engine_thread import EngineThread, LiveEnhancer, WorkerOptions, enhancer_opener
from idm_rt.governor import Governor
from idm_rt.live_records import Cause, LiveControls, LiveFrame, LiveStats
from idm_rt.mailbox import LatestMailbox
from idm_rt.timing import Clock, StageTimer
from idm_rt.types import Frame

__all__ = [
    "Cause",
    "LiveControls",
    "LiveEnhancer",
    "LiveFrame",
    "LiveStats",
    "PipelineWorker",
    "WorkerOptions",
    "enhancer_opener",
]

log = logging.getLogger(__name__)

_WATCH_EVERY_S = 0.25  # longest time between two looks at the engine


class PipelineWorker:
    """Runs an enhancer beside a live stream.

    ``submit`` takes frames from any thread or event loop and never waits; ``outbound`` gives them back in order, each
    before its deadline: restored if the engine was in time, as they were if not. Two threads do the work. The engine
    thread opens the enhancer and runs it. The watch thread runs no engine code: it emits the originals that are due,
    and replaces an engine thread that is lost in a call. Such a thread cannot be ended; it is left to itself, frees
    its enhancer when the call returns after all, and only ``max_abandoned`` of them may exist at a time.

    Use it as a context manager, or call ``start`` and ``close``.
    """

    def __init__(
        self,
        open_enhancer: Callable[[], LiveEnhancer],
        controls: LiveControls | None = None,
        options: WorkerOptions | None = None,
        *,
        clock: Clock = time.monotonic,
    ) -> None:
        """Nothing is opened yet.

        Args:
            open_enhancer: see ``enhancer_opener``; called on an engine thread, and again after a failure.
            controls: what the user wants; see ``set_controls``.
            options: None = defaults.
            clock: monotonic seconds; the one of ``Frame.captured_s``.
        """
        self._options = options or WorkerOptions()
        self._open_enhancer, self._clock = open_enhancer, clock
        controls = controls or LiveControls()
        governor = Governor(controls.steps, self._options.governor)
        self._delivery = Delivery(controls, governor, clock, self._options.deadline_frames)
        self._engine: EngineThread | None = None
        self._abandoned: list[EngineThread] = []  # still inside a call
        self._threads_started = 0
        self._stopping = False
        self._watcher = threading.Thread(target=self._watch, name="idm-rt watch", daemon=True)

    @property
    def outbound(self) -> LatestMailbox[LiveFrame]:
        """Where the frames come out: ``get`` for threads, ``get_async`` for event loops. Closed at the end."""
        return self._delivery.outbound

    @property
    def controls(self) -> LiveControls:
        """The present controls."""
        return self._delivery.controls

    @property
    def error(self) -> str | None:
        """Why the last attempt to open an enhancer failed; None if none did since the last success."""
        engine = self._engine
        return engine.error if engine is not None else None

    def start(self) -> Self:
        """Start the threads. Returns at once: frames pass as they are until the enhancer is open."""
        with self._delivery.changed:
            self._start_engine()
        self._watcher.start()
        return self

    def submit(self, frame: Frame) -> None:
        """Hand in the stream's next frame, whose array must not be changed afterwards. Ignored after the end."""
        self._delivery.submit(frame)

    def set_controls(self, controls: LiveControls) -> None:
        """Change what the user wants; the next frame obeys.

        Raises:
            ValueError: the model offers no such steps.
        """
        self._delivery.set_controls(controls)

    def wait_ready(self, timeout_s: float | None = None) -> bool:
        """Wait (on a thread, not on an event loop) for an open enhancer; False if none came in time."""
        with self._delivery.changed:
            self._delivery.changed.wait_for(lambda: self._delivery.engine_open or self._stopping, timeout_s)
            return self._delivery.engine_open and not self._stopping

    def stop(self) -> None:
        """Ask everything to end, without waiting. Readers of ``outbound`` get ``MailboxClosed``."""
        with self._delivery.changed:
            self._stopping = True
            if self._engine is not None:
                self._engine.retired.set()
            self._delivery.inbound.close()
            self._delivery.outbound.close()
            self._delivery.changed.notify_all()

    def close(self, timeout_s: float = 2.0) -> bool:
        """End everything and wait for the threads, no longer than ``timeout_s``. Blocks; a second call is fine.

        Returns:
            False if a thread is still inside an engine's call. It is a daemon and does not hold up the process's exit.
        """
        self.stop()
        until_s = time.monotonic() + timeout_s
        with self._delivery.changed:
            engines = [engine.thread for engine in (self._engine, *self._abandoned) if engine is not None]
        threads = [thread for thread in (self._watcher, *engines) if thread.ident is not None]
        for thread in threads:
            thread.join(max(0.0, until_s - time.monotonic()))
        alive = [thread.name for thread in threads if thread.is_alive()]
        if alive:
            log.warning("ended without waiting any longer for: %s", ", ".join(alive))
        return not alive

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def stats(self) -> LiveStats:
        """A snapshot of what happened so far; from any thread."""
        with self._delivery.changed:
            engine, state = self._engine, self._engine_state()
            abandoned = sum(1 for lost in self._abandoned if lost.thread.is_alive())
            started = self._threads_started
        timer = engine.timer if engine is not None else StageTimer()
        return self._delivery.stats(state, timer, started, abandoned)

    def _engine_state(self) -> str:
        if self._stopping:
            return "closed"
        if self._engine is None or self._delivery.overdue():
            return "stuck"
        return "running" if self._delivery.engine_open else "opening"

    def _start_engine(self) -> None:
        self._threads_started += 1
        engine = EngineThread(self._delivery, self._open_enhancer, self._options, self._clock, self._threads_started)
        self._engine = engine
        engine.thread.start()

    def _watch(self) -> None:
        """The watch thread: emit what is due, then sleep until the next deadline or until something changes."""
        with self._delivery.changed:
            while not self._stopping:
                due_in_s = self._delivery.watch()
                self._check_engine()
                self._delivery.changed.wait(_WATCH_EVERY_S if due_in_s is None else min(due_in_s, _WATCH_EVERY_S))

    def _check_engine(self) -> None:
        """Replace an engine thread that is lost in a call; the lock is held."""
        if self._engine is not None and self._is_lost(self._engine):
            log.error("an engine call has not returned: its thread is abandoned")
            self._engine.retired.set()
            self._abandoned.append(self._engine)
            self._engine = None
            self._delivery.engine_lost()
        if self._engine is not None:
            return
        self._abandoned = [engine for engine in self._abandoned if engine.thread.is_alive()]
        if len(self._abandoned) < self._options.max_abandoned:
            self._start_engine()

    def _is_lost(self, engine: EngineThread) -> bool:
        now, current = self._clock(), self._delivery.current
        if current is not None and current.began_s is not None:
            return now - current.began_s > self._options.hang_after_s
        opening_since_s = engine.opening_since_s
        return opening_since_s is not None and now - opening_since_s > self._options.open_within_s
