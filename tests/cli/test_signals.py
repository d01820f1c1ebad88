"""A signal that arrives where Python swallows exceptions still ends the command."""

from __future__ import annotations

import os
import signal

import pytest

from idm_rt.cli.output import Console
from idm_rt.cli.signals import UnwindingSignals


class Interrupted:
    """Its destructor is interrupted, and Python ignores whatever a destructor raises."""

    def __init__(self, number: int) -> None:
        self.number = number

    def __del__(self) -> None:
        os.kill(os.getpid(), self.number)


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
@pytest.mark.parametrize(("number", "kind"), [(signal.SIGINT, KeyboardInterrupt), (signal.SIGTERM, SystemExit)])
def test_a_swallowed_signal_ends_the_work_before_the_next_item(number: int, kind: type[BaseException]) -> None:
    done = []
    with pytest.raises(kind), UnwindingSignals() as signals:
        for item in Console(check=signals.check).progress(range(5), 5, "item"):
            done.append(item)
            if item == 2:
                Interrupted(number)
    assert done == [0, 1, 2]


def test_handlers_are_put_back() -> None:
    before = signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM)
    with UnwindingSignals():
        assert signal.getsignal(signal.SIGTERM) != before[1]
    assert (signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM)) == before
