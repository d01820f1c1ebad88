"""Times by the device's events: the arithmetic on scripted ones, and that engines bracket their runs with them."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from tiny_model import SIZE

from idm_rt.backends import torch_backend
from idm_rt.backends.base import Backend
from idm_rt.backends.device_clock import DeviceClock
from idm_rt.backends.swapping import SwappingBackend
from idm_rt.backends.torch_backend import TorchBackend
from idm_rt.model_manifest import load_manifest
from idm_rt.network import load_denoiser


class ScriptedEvents:
    """Makes events; the device's time goes on by ``step_ms`` with each record."""

    def __init__(self, step_ms: float = 1.5) -> None:
        self.now_ms, self.step_ms, self.made = 0.0, step_ms, 0

    def __call__(self) -> ScriptedEvent:
        self.made += 1
        return ScriptedEvent(self)


class ScriptedEvent:
    def __init__(self, events: ScriptedEvents) -> None:
        self._events, self._at, self._reached = events, -1.0, False

    def record(self) -> None:
        self._events.now_ms += self._events.step_ms
        self._at, self._reached = self._events.now_ms, False

    def synchronize(self) -> None:
        self._reached = True

    def elapsed_time(self, end_event: ScriptedEvent, /) -> float:
        assert end_event._reached, "CUDA refuses to read an event that was not reached"
        return end_event._at - self._at


def test_durations_add_up_and_events_are_used_again() -> None:
    events = ScriptedEvents()
    clock = DeviceClock(events, "everything")
    assert clock.take_ms() is None and events.made == 0
    for _ in range(3):
        for _ in range(2):
            clock.start()
            clock.stop()
        assert clock.take_ms() == 3.0 and clock.take_ms() is None
    assert events.made == 4


def test_a_run_that_failed_is_not_counted() -> None:
    clock = DeviceClock(ScriptedEvents(), "everything")
    clock.start()  # and the run raised
    clock.start()
    clock.stop()
    assert clock.take_ms() == 1.5


@pytest.fixture
def torch_engine(tiny_folder: Path) -> TorchBackend:
    """The GPU path of torch, on the CPU."""

    def capture(work: Callable[[], None]) -> Callable[[], None]:
        work()
        return work

    manifest = load_manifest(tiny_folder)
    net = load_denoiser(manifest.verified_file("weights"), manifest.network)
    return TorchBackend(net, SIZE, device="cpu", capture=capture)


def test_torch_times_its_runs_on_a_gpu_alone(
    torch_engine: TorchBackend, face_crops: np.ndarray, monkeypatch: pytest.MonkeyPatch
) -> None:
    eps = np.zeros((1, 3, SIZE, SIZE), np.float32)
    assert torch_engine.device_clock() is None  # on a CPU the caller's clock says it all
    events = ScriptedEvents()
    monkeypatch.setattr(torch_backend, "cuda_clock", lambda covers: DeviceClock(events, covers))
    with monkeypatch.context() as gpu:
        gpu.setattr(torch_engine, "device", "cuda:0")
        clock = torch_engine.device_clock()
        assert clock is not None and clock is torch_engine.device_clock()
    for _ in range(2):  # first the recording of the graph, then its replay
        torch_engine.correction(face_crops, eps, 1)
        assert clock.take_ms() == 1.5
    torch_engine.close()


class TimedBackend(Backend):
    """Nothing but a clock."""

    name, precision, device, size = "timed", "fp16", "cuda:0", SIZE

    def __init__(self, clock: DeviceClock | None) -> None:
        self._clock = clock

    def device_clock(self) -> DeviceClock | None:
        return self._clock


def test_the_engine_in_use_is_the_one_that_is_timed() -> None:
    clock = DeviceClock(ScriptedEvents(), "everything")
    swapping = SwappingBackend(TimedBackend(None), lambda closed: TimedBackend(clock))
    assert swapping.wait(10.0)
    assert swapping.device_clock() is clock
    swapping.close()
