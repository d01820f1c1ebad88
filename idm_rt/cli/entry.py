"""Parse, run one command, turn what happens into an exit code and at most one line of error.

Exit codes: 0 done, 1 failure, 2 usage, 130 Ctrl-C, 143 terminated.
"""

from __future__ import annotations

import argparse
import importlib
import os
import sys
from collections.abc import Sequence

from idm_rt.cli.output import Console, library_log
from idm_rt.cli.parser import build_parser
from idm_rt.cli.signals import UnwindingSignals
from idm_rt.errors import ConfigError, IdmError

OK, FAILURE, USAGE, INTERRUPTED = 0, 1, 2, 130


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line; returns the exit code.

    Args:
        argv: arguments without the program's name; None = those of the process.
    """
    try:
        options = build_parser().parse_args(argv)
    except SystemExit as stop:  # argparse has printed its one line, or the help
        return int(stop.code or 0)
    signals = UnwindingSignals()
    console = Console(debug=getattr(options, "debug", False), check=signals.check)
    try:
        with signals, library_log(console):
            return _run(options, console)
    except KeyboardInterrupt:
        console.error("interrupted; unfinished files were removed")
        return INTERRUPTED
    except BrokenPipeError:  # the reader of our output went away, as `| head` does
        _silence_stdout()
        return FAILURE
    except IdmError as error:
        return _failed(console, error, str(error), USAGE if isinstance(error, ConfigError) else FAILURE)
    except MemoryError as error:
        return _failed(console, error, "out of memory; use a smaller picture or free some memory")
    except Exception as error:  # a bug, but the user gets one line like for any other failure
        return _failed(console, error, f"unexpected {type(error).__name__}: {error}; --debug shows where")


def _run(options: argparse.Namespace, console: Console) -> int:
    command = importlib.import_module(f"idm_rt.cli.{options.module}")
    return int(command.run(options, console))


def _failed(console: Console, error: BaseException, message: str, code: int = FAILURE) -> int:
    if console.debug:
        console.traceback(error)
    console.error(message)
    return code


def _silence_stdout() -> None:
    """Python flushes stdout at exit, which would fail a second time and print about it."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
