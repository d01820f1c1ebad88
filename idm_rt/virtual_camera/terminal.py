"""Keys from the terminal without Enter, and one status line. Leaves the terminal as it was."""

from __future__ import annotations

import logging
import os
import select
import shutil
import sys
import threading
from types import TracebackType
from typing import Any, Self, TextIO

log = logging.getLogger(__name__)


class TerminalKeys:
    """Single keys from standard input while the ``with`` block runs; none if that is no terminal in the foreground.

    Ctrl-C and Ctrl-Z keep their meaning. The terminal's modes are restored at the end, whatever ends the block.
    """

    def __init__(self) -> None:
        self._fd: int | None = None
        self._before: list[Any] | None = None

    @property
    def active(self) -> bool:
        """Whether keys can come."""
        return self._before is not None or (sys.platform == "win32" and sys.stdin.isatty())

    def __enter__(self) -> Self:
        if sys.platform != "win32":
            self._enter_posix()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if sys.platform != "win32" and self._before is not None and self._fd is not None:
            import termios

            before, self._before = self._before, None
            try:
                termios.tcsetattr(self._fd, termios.TCSADRAIN, before)
            except termios.error:  # the terminal is gone
                log.debug("the terminal's modes could not be restored", exc_info=True)

    def read(self) -> str:
        """The keys pressed since the last call; never waits."""
        if sys.platform == "win32":
            return _windows_keys()
        if self._before is None or self._fd is None:
            return ""
        try:
            if not select.select([self._fd], [], [], 0)[0]:
                return ""
            data = os.read(self._fd, 64)
        except OSError:  # the terminal is gone
            return ""
        # an arrow or function key is a sequence that begins with Escape: only a lone Escape is a key here
        return data.decode("ascii", "ignore") if data == b"\x1b" or not data.startswith(b"\x1b") else ""

    def _enter_posix(self) -> None:
        try:
            fd = sys.stdin.fileno()
        except (OSError, ValueError, AttributeError):  # closed, or replaced by something without a file
            return
        if not os.isatty(fd) or not _in_foreground(fd):
            return
        import termios
        import tty

        before = termios.tcgetattr(fd)
        tty.setcbreak(fd, termios.TCSADRAIN)
        self._fd, self._before = fd, before


def _in_foreground(fd: int) -> bool:
    """A job in the background is stopped when it touches the terminal."""
    try:
        return sys.platform == "win32" or os.tcgetpgrp(fd) == os.getpgrp()
    except OSError:
        return False


def _windows_keys() -> str:
    keys = ""
    if sys.platform == "win32":
        import msvcrt

        while msvcrt.kbhit():
            keys += msvcrt.getwch()
    return keys


class StatusLine:
    """One line at the bottom of a terminal that is written over; silent where the stream is no terminal.

    Whoever prints something else meanwhile calls ``clear`` before and ``refresh`` after it.
    """

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream
        self.active = stream.isatty()
        self._text = ""
        self._lock = threading.Lock()

    def show(self, text: str) -> None:
        """Replace the line."""
        self._text = text
        self.refresh()

    def refresh(self) -> None:
        """Show the line again."""
        if self._text:
            self._write(self._text[: shutil.get_terminal_size().columns - 1])

    def clear(self) -> None:
        """Remove the line for the moment."""
        if self._text:
            self._write("")

    def close(self) -> None:
        """Remove the line for good."""
        self.clear()
        self._text = ""

    def _write(self, text: str) -> None:
        if self.active:
            with self._lock:  # the log speaks from other threads
                self._stream.write(f"\r\x1b[K{text}")
                self._stream.flush()
