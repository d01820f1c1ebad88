"""Ctrl-C and ``kill``: commands with a task unwind; those that run until they are ended are asked, then made."""

from __future__ import annotations

import atexit
import os
import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from types import FrameType
from typing import Any, Self

TERMINATED = 143  # exit code after SIGTERM


class UnwindingSignals:
    """SIGINT and SIGTERM unwind the stack, so that files under temporary names are removed.

    The exception is raised wherever the signal happens to arrive. In a destructor, or in a callback of a native
    library, it is swallowed; ``check``, called between two items of work, raises it then.
    """

    def __init__(self) -> None:
        self._asked: int | None = None
        self._before: dict[int, Any] = {}

    def __enter__(self) -> Self:
        try:
            for number in (signal.SIGINT, signal.SIGTERM):
                self._before[number] = signal.signal(number, self._ask)
        except ValueError:  # not in the main thread: the embedding program decides
            self._before = {}
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def check(self) -> None:
        """Raise what a signal has asked for before, if it was swallowed."""
        if self._asked is not None:
            raise KeyboardInterrupt if self._asked == signal.SIGINT else SystemExit(TERMINATED)

    def _ask(self, number: int, frame: FrameType | None) -> None:
        self._asked = number
        self.check()


@contextmanager
def ending_signals() -> Iterator[threading.Event]:
    """Yield an event that the first SIGINT or SIGTERM sets; a second one acts as it would without this block."""
    stop = threading.Event()
    before: dict[int, Any] = {}

    def ask(number: int, frame: FrameType | None) -> None:
        stop.set()
        for signal_number, handler in before.items():
            signal.signal(signal_number, handler)

    try:
        for number in (signal.SIGINT, signal.SIGTERM):
            before[number] = signal.signal(number, ask)
    except ValueError:  # not in the main thread: the embedding program decides
        before = {}
    try:
        yield stop
    finally:
        for signal_number, handler in before.items():
            signal.signal(signal_number, handler)


def leave_threads_at_exit(code: int) -> None:
    """End the process at its exit without the clean-up of native libraries, which would wait for threads or abort.

    For a command that had to leave a thread inside a native call: everything of its own is closed by now.
    """

    def leave() -> None:
        if any(thread.daemon and thread.name.startswith("idm-rt") for thread in threading.enumerate()):
            for stream in (sys.stdout, sys.stderr):
                with suppress(OSError, ValueError):
                    stream.flush()
            os._exit(code)

    atexit.register(leave)
