"""Keep native libraries from writing start-up chatter into the user's terminal."""

from __future__ import annotations

import logging
import os
import sys
import tempfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import IO

logger = logging.getLogger(__name__)

_STDERR_FD = 2
_LOCK = threading.Lock()  # the descriptor is one per process: two threads must not swap it at once


@contextmanager
def quiet_native_stderr(chatter: tuple[str, ...]) -> Iterator[None]:
    """Hold back what is written to file descriptor 2 inside the block.

    mediapipe's C++ part logs through absl before any Python switch is looked at (GLOG_minloglevel and
    TF_CPP_MIN_LOG_LEVEL change nothing in 1.2.2), so the descriptor itself is swapped for the length of the block.
    Lines that hold one of the ``chatter`` words go to this module's logger at debug level; every other line, say
    from another thread, is passed on when the block ends. Nothing is lost.
    """
    with _LOCK, tempfile.TemporaryFile() as capture:
        try:
            saved = os.dup(_STDERR_FD)
        except OSError:  # a process without a stderr: nothing to keep quiet
            yield
            return
        try:
            _flush_python_stderr()
            os.dup2(capture.fileno(), _STDERR_FD)
            yield
        finally:
            _flush_python_stderr()
            os.dup2(saved, _STDERR_FD)
            os.close(saved)
            _pass_on(capture, chatter)


def _flush_python_stderr() -> None:
    if sys.stderr is not None:
        sys.stderr.flush()


def _pass_on(capture: IO[bytes], chatter: tuple[str, ...]) -> None:
    """Log the chatter, write the rest to the real stderr."""
    capture.seek(0)
    for line in capture.read().decode("utf-8", "replace").splitlines(keepends=True):
        if any(word in line for word in chatter):
            logger.debug("%s", line.rstrip())
        else:
            os.write(_STDERR_FD, line.encode("utf-8", "replace"))
