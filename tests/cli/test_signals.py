"""A signal that arrives where Python swallows exceptions still ends the command."""

from __future__ import annotations

import signal
import subprocess
import sys

import pytest

from idm_rt.cli.signals import UnwindingSignals

SCRIPT = """
import os, sys
from idm_rt.cli.output import Console
from idm_rt.cli.signals import UnwindingSignals

class Interrupted:
    def __del__(self):  # Python ignores whatever a destructor raises
        os.kill(os.getpid(), int(sys.argv[1]))

try:
    with UnwindingSignals() as signals:
        for item in Console(check=signals.check).progress(range(5), 5, "item"):
            print(item)
            if item == 2:
                Interrupted()
except BaseException as error:
    print(type(error).__name__)
"""


@pytest.mark.parametrize(("number", "name"), [(signal.SIGINT, "KeyboardInterrupt"), (signal.SIGTERM, "SystemExit")])
def test_a_swallowed_signal_ends_the_work_before_the_next_item(number: int, name: str) -> None:
    """In a process of its own: a signal to a process is everybody's."""
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT, str(int(number))], capture_output=True, text=True, timeout=60, check=True
    )
    assert done.stdout.split() == ["0", "1", "2", name]
    assert "Exception ignored" in done.stderr  # it was swallowed indeed


def test_handlers_are_put_back() -> None:
    before = signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM)
    with UnwindingSignals():
        assert signal.getsignal(signal.SIGTERM) != before[1]
    assert (signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM)) == before
