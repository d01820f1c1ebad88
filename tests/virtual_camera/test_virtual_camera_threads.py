"""The camera on its real threads: engine and camera trouble, changes, and the end."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace

import numpy as np
import pytest
from camera_fakes import SIZE, FakeCable, WhiteEnhancer

from idm_rt.errors import MediaError
from idm_rt.live_records import LiveControls
from idm_rt.virtual_camera import CameraControls, CameraOptions, VirtualCamera
from idm_rt.virtual_camera.records import SourceStatus
from idm_rt.virtual_camera.sinks import SinkKeeper
from idm_rt.worker import WorkerOptions

PATIENCE_S = 30.0
QUICK = WorkerOptions(hang_after_s=0.4, open_within_s=5.0, replace_after_s=0.3, retry_after_s=0.05)
ENHANCED, ORIGINAL = 255, 100


class TimedSink:
    """Keeps the time and first value of each picture."""

    name = "the timed sink"

    def __init__(self) -> None:
        self.writes: list[tuple[float, int]] = []
        self.error: MediaError | None = None
        self.closed = 0

    def write(self, image: np.ndarray, tick: int, count: int) -> None:
        if self.error is not None:
            raise self.error
        self.writes.append((time.monotonic(), int(image[0, 0, 0])))

    def close(self) -> None:
        self.closed += 1


class Running:
    """A camera on fakes."""

    def __init__(self) -> None:
        self.cable, self.sink = FakeCable(), TimedSink()
        self.enhancers: list[WhiteEnhancer] = []
        self.reopens = True
        self.camera = VirtualCamera(
            self.cable, lambda: SinkKeeper(lambda: self.sink, time.monotonic, reopens=self.reopens), self.open,
            CameraOptions(size=SIZE, hang_after_s=1.0), worker=QUICK,
        )  # fmt: skip

    def open(self) -> WhiteEnhancer:
        self.enhancers.append(WhiteEnhancer())
        return self.enhancers[-1]

    def sees(self, value: int | None, *, several: int = 3) -> Callable[[], bool]:
        """Whether the newest pictures have this value; None = a placeholder."""

        def holds() -> bool:
            values = [value for _, value in self.sink.writes[-several:]]
            wanted = {value} if value is not None else set(values) - {ENHANCED, ORIGINAL}
            return len(values) == several and set(values) == wanted

        return holds


def wait_until(holds: Callable[[], bool]) -> float:
    start_s = time.monotonic()
    while not holds():
        assert time.monotonic() - start_s < PATIENCE_S, "nothing of the kind in time"
        time.sleep(0.005)
    return time.monotonic() - start_s


def own_threads() -> list[str]:
    return [thread.name for thread in threading.enumerate() if thread.name.startswith("idm-rt")]


@contextmanager
def running(prepare: Callable[[Running], None] = lambda run: None) -> Iterator[Running]:
    run = Running()
    prepare(run)
    try:
        with run.camera:
            yield run
    finally:
        run.cable.let_go.set()
        for enhancer in run.enhancers:
            enhancer.let_go.set()
        run.camera.close()
    wait_until(lambda: not own_threads())


def test_it_shows_enhanced_pictures_and_frees_everything() -> None:
    with running() as run:
        wait_until(run.sees(ENHANCED))
        status = run.camera.status()
        assert status.source.status is SourceStatus.LIVE and status.source.size == SIZE
        assert status.to_dict()["worker"]["engine"] == "running"
    assert run.sink.closed == 1 and all(enhancer.closed.is_set() for enhancer in run.enhancers)
    assert all(camera.closed for camera in run.cable.made)


def test_the_camera_is_pulled_and_plugged_in_again_while_the_device_stays_open() -> None:
    with running() as run:
        wait_until(run.sees(ENHANCED))
        run.cable.pulled.set()
        took_s = wait_until(run.sees(None))
        assert took_s < 0.5 + 3.0  # half a second, and room for a busy machine
        before = len(run.sink.writes)
        wait_until(lambda: len(run.sink.writes) > before + 10)  # the rate goes on
        run.cable.pulled.clear()
        wait_until(run.sees(ENHANCED))
        assert run.camera.status().source.losses == 1
    assert run.sink.closed == 1


def test_a_camera_that_hangs_is_replaced() -> None:
    with running() as run:
        wait_until(run.sees(ENHANCED))
        run.cable.hang.set()
        wait_until(run.sees(None))
        run.cable.hang.clear()
        wait_until(run.sees(ENHANCED))
        assert len(run.cable.made) >= 2


def test_the_engine_is_killed_and_the_original_goes_on_until_a_new_one_is_there() -> None:
    with running() as run:
        wait_until(run.sees(ENHANCED))
        run.enhancers[-1].error = RuntimeError("the engine was killed")
        assert wait_until(run.sees(ORIGINAL)) < 1.0 + 3.0
        wait_until(run.sees(ENHANCED))  # a new one
        assert len(run.enhancers) == 2 and run.camera.status().source.losses == 0


def test_the_engine_hangs_and_the_picture_does_not() -> None:
    with running() as run:
        wait_until(run.sees(ENHANCED))
        run.enhancers[-1].hang.set()
        wait_until(run.sees(ORIGINAL))
        wait_until(run.sees(ENHANCED))
        assert len(run.enhancers) == 2


def test_without_any_engine_the_original_is_shown(monkeypatch: pytest.MonkeyPatch) -> None:
    def no_engine() -> WhiteEnhancer:
        raise MediaError("no model here")

    def prepare(run: Running) -> None:
        run.camera._worker._open_enhancer = no_engine  # type: ignore[assignment]

    with running(prepare) as run:
        wait_until(run.sees(ORIGINAL))
        wait_until(lambda: run.camera.status().engine_error == "MediaError: no model here")


def test_controls_change_while_it_runs() -> None:
    with running() as run:
        wait_until(run.sees(ENHANCED))
        run.camera.set_controls(CameraControls(LiveControls(enabled=False)))
        wait_until(run.sees(ORIGINAL))
        run.camera.set_controls(replace(run.camera.controls, live=LiveControls(steps=2, strength=0.5)))
        wait_until(run.sees(ENHANCED))
        assert run.camera.status().worker.levels[0] == "2 steps"


def test_a_file_that_cannot_be_written_ends_it_with_the_reason() -> None:
    with running(lambda run: setattr(run, "reopens", False)) as run:
        wait_until(run.sees(ENHANCED))
        run.sink.error = MediaError("the disk is full")
        assert run.camera.wait(PATIENCE_S)
        assert str(run.camera.failure) == "the disk is full"


def test_a_sink_that_never_returns_does_not_hold_up_the_end() -> None:
    gate = threading.Event()
    with running() as run:
        wait_until(run.sees(ENHANCED))
        run.sink.write = lambda *_: gate.wait()  # type: ignore[method-assign]
        time.sleep(0.1)
        start_s = time.monotonic()
        assert not run.camera.close()
        assert time.monotonic() - start_s < 3.0
        gate.set()


def test_an_output_that_cannot_be_opened_leaves_nothing_behind() -> None:
    cable = FakeCable()

    def no_sink() -> SinkKeeper:
        raise MediaError("no device")

    camera = VirtualCamera(cable, no_sink, WhiteEnhancer, CameraOptions(size=SIZE))
    with pytest.raises(MediaError, match="no device"), camera:
        pass
    wait_until(lambda: not own_threads())


@pytest.mark.parametrize(
    "wrong", [{"size": (641, 480)}, {"size": (0, 480)}, {"fps": 0.0}, {"fps": 1e9}, {"stale_after_s": 0.0}]
)
def test_options_that_cannot_work_are_refused(wrong: dict[str, object]) -> None:
    with pytest.raises(ValueError, match="expected"):
        CameraOptions(**wrong)  # type: ignore[arg-type]
