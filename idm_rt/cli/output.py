"""The one door through which the command line speaks: text, errors, log lines and the progress bar."""

from __future__ import annotations

import json
import logging
import sys
import traceback
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Any, TextIO

PROGRAM = "idm-rt"


class Console:
    """Results go to stdout; errors, warnings and the progress bar go to stderr.

    Args:
        debug: show debug log lines, and tracebacks of errors.
        check: called between two items of ``progress``; raises to end them.
    """

    def __init__(self, *, debug: bool = False, check: Callable[[], None] = lambda: None) -> None:
        self.debug, self._check = debug, check
        self._bar: Any = None

    def say(self, text: str = "") -> None:
        """One or more lines of a result."""
        self._print(text, sys.stdout)

    def json(self, value: Any) -> None:
        """A result for machines."""
        self.say(json.dumps(value, indent=2))

    def error(self, message: str) -> None:
        """One line, whatever the message holds; ends a progress bar."""
        if self._bar is not None:
            self._bar.close()
            self._bar = None
        self._print(f"{PROGRAM}: error: {one_line(message)}", sys.stderr)

    def warn(self, message: str) -> None:
        """One line about something that went differently than asked, but went."""
        self._print(f"{PROGRAM}: warning: {one_line(message)}", sys.stderr)

    def log(self, text: str) -> None:
        """Lines of the log."""
        self._print(text, sys.stderr)

    def traceback(self, error: BaseException) -> None:
        """Where an error came from (``--debug``)."""
        self._print("".join(traceback.format_exception(error)).rstrip(), sys.stderr)

    def progress(self, items: Iterable[Any], total: int | None, unit: str) -> Iterator[Any]:
        """Yield ``items`` behind a bar with rate and time left; there is none when stderr is not a terminal."""
        from tqdm import tqdm

        with tqdm(items, total=total, unit=f" {unit}", disable=None, dynamic_ncols=True, leave=False) as bar:
            self._bar = bar
            try:
                for item in bar:
                    yield item
                    self._check()
            finally:
                self._bar = None

    def pin(self, line: Any) -> None:
        """Keep a line at the bottom out of the way of what is printed: it has ``clear``, ``refresh`` and ``close``."""
        self._bar = line

    def _print(self, text: str, stream: TextIO) -> None:
        if self._bar is not None:
            self._bar.clear()
        print(text, file=stream, flush=True)
        if self._bar is not None:
            self._bar.refresh()


def one_line(message: str) -> str:
    """``message`` without line breaks."""
    return " ".join(message.split())


class _LogToConsole(logging.Handler):
    """Warnings of the library as one line each, none twice; everything, with its source, when debugging."""

    def __init__(self, console: Console) -> None:
        super().__init__()
        self._console = console
        self._shown: set[str] = set()

    def emit(self, record: logging.LogRecord) -> None:
        if self._console.debug:
            self._console.log(self.format(record))
        elif (message := record.getMessage()) not in self._shown:
            self._shown.add(message)
            self._console.warn(message)


@contextmanager
def library_log(console: Console) -> Iterator[None]:
    """Send the library's log to the console, and nowhere else, for as long as the block runs."""
    handler = _LogToConsole(console)
    handler.setFormatter(logging.Formatter("%(levelname)s %(name)s: %(message)s"))
    logger = logging.getLogger("idm_rt")
    before = logger.handlers, logger.level, logger.propagate
    logger.handlers, logger.propagate = [handler], False
    logger.setLevel(logging.DEBUG if console.debug else logging.WARNING)
    try:
        yield
    finally:
        logger.handlers, logger.propagate = before[0], before[2]
        logger.setLevel(before[1])
