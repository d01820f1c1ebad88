"""The better engine takes over between two calls, and nothing waits for it or breaks because of it."""

from __future__ import annotations

import threading

import numpy as np
import pytest

from idm_rt.backends.base import Backend
from idm_rt.backends.swapping import SwappingBackend
from idm_rt.errors import EngineError

ONE = np.zeros((1, 3, 8, 8), np.float32)


class Constant(Backend):
    """Answers with its own number."""

    precision, size = "f32", 8

    def __init__(self, name: str, number: float) -> None:
        self.name, self.device, self.number, self.closed = name, f"device {number}", number, 0

    def denoise(self, x_t: np.ndarray, y: np.ndarray, t: float) -> np.ndarray:
        assert not self.closed, "used after it was closed"
        return np.full_like(y, self.number)

    def close(self) -> None:
        self.closed += 1


class Gate:
    """Opens the better engine when told to."""

    def __init__(self, result: Backend | Exception) -> None:
        self.go, self.result, self.cancelled = threading.Event(), result, threading.Event()

    def __call__(self, cancelled: threading.Event) -> Backend:
        self.cancelled = cancelled
        assert self.go.wait(10)
        if isinstance(self.result, Exception):
            raise self.result
        return self.result


@pytest.fixture
def slow() -> Constant:
    return Constant("slow", 1.0)


@pytest.fixture
def fast() -> Constant:
    return Constant("fast", 2.0)


def test_the_better_one_takes_over_between_two_calls(slow: Constant, fast: Constant) -> None:
    gate = Gate(fast)
    with SwappingBackend(slow, gate) as backend:
        assert backend.denoise(ONE, ONE, 1.0)[0, 0, 0, 0] == 1.0 and backend.name == "slow"
        assert not backend.wait(0.0)
        gate.go.set()
        assert backend.wait(10)
        assert not slow.closed  # not before it is out of use
        assert backend.denoise(ONE, ONE, 1.0)[0, 0, 0, 0] == 2.0
        assert (backend.name, backend.device, slow.closed) == ("fast", "device 2.0", 1)
    assert (slow.closed, fast.closed) == (1, 1)


@pytest.mark.parametrize("error", [EngineError("the build failed"), RuntimeError("a bug")])
def test_if_it_cannot_be_opened_all_stays_as_it_is(
    error: Exception, slow: Constant, caplog: pytest.LogCaptureFixture
) -> None:
    gate = Gate(error)
    gate.go.set()
    with SwappingBackend(slow, gate) as backend:
        assert backend.wait(10)
        assert backend.denoise(ONE, ONE, 1.0)[0, 0, 0, 0] == 1.0
    assert str(error) in caplog.text and "going on with the engine in use" in caplog.text


def test_closed_during_the_build(slow: Constant, fast: Constant, caplog: pytest.LogCaptureFixture) -> None:
    gate = Gate(fast)
    backend = SwappingBackend(slow, gate)
    backend.close()
    assert slow.closed == 1
    gate.go.set()
    assert backend.wait(10)
    assert gate.cancelled.is_set() and fast.closed == 1  # nobody else would
    with pytest.raises(ValueError, match="closed"):
        backend.denoise(ONE, ONE, 1.0)
    backend.close()
    assert (slow.closed, fast.closed) == (1, 1) and not caplog.records


def test_a_cancelled_build_is_no_warning(slow: Constant, caplog: pytest.LogCaptureFixture) -> None:
    gate = Gate(EngineError("the build was cancelled"))
    backend = SwappingBackend(slow, gate)
    backend.close()
    gate.go.set()
    assert backend.wait(10) and not caplog.records


def test_many_calls_while_it_swaps(slow: Constant, fast: Constant) -> None:
    """Every call is answered by one engine, and by the better one for ever after its first answer."""
    gate = Gate(fast)
    answers: list[float] = []
    with SwappingBackend(slow, gate) as backend:

        def call() -> float:
            return float(backend.denoise(ONE, ONE, 1.0)[0, 0, 0, 0])

        answers += [call() for _ in range(50)]
        gate.go.set()
        while answers[-1] != 2.0:
            answers.append(call())
        answers += [call() for _ in range(50)]
    assert answers == sorted(answers)
