"""A camera that goes, hangs, comes back, or raises what no camera should."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable

import numpy as np
import pytest
from camera_fakes import FakeCable
from hypothesis import given
from hypothesis import strategies as st

from idm_rt.virtual_camera.backoff import Backoff
from idm_rt.virtual_camera.records import SourceStatus
from idm_rt.virtual_camera.source_keeper import SourceKeeper

PATIENCE_S = 30.0


def wait_until(holds: Callable[[], bool]) -> None:
    end_s = time.monotonic() + PATIENCE_S
    while not holds():
        assert time.monotonic() < end_s, "nothing of the kind in time"
        time.sleep(0.005)


@pytest.fixture
def cable():
    cable = FakeCable()
    yield cable
    cable.let_go.set()


@pytest.fixture
def keeper(cable: FakeCable):
    pictures: list[np.ndarray] = []
    keeper = SourceKeeper(
        cable, lambda image, captured_s: pictures.append(image), clock=time.monotonic, output_fps=30.0,
        hang_after_s=0.3, backoff=Backoff(first_s=0.01, longest_s=0.05),
    )  # fmt: skip
    keeper.pictures = pictures
    keeper.start()
    yield keeper
    cable.let_go.set()
    keeper.close()
    wait_until(lambda: not any(thread.name == "idm-rt camera" for thread in threading.enumerate()))


@given(st.lists(st.floats(0.0, 10.0), min_size=1, max_size=80))
def test_pauses_double_up_to_the_longest_and_begin_anew_after_a_stable_time(worked: list[float]) -> None:
    backoff, previous_s = Backoff(), 0.0
    for worked_s in worked:
        pause_s = backoff.failed(worked_s)
        assert 0.25 <= pause_s <= 5.0
        assert pause_s == (0.25 if worked_s >= 2.0 or not previous_s else min(5.0, previous_s * 2.0))
        previous_s = pause_s


def test_a_pulled_cable_is_noticed_and_the_camera_comes_back(cable: FakeCable, keeper: SourceKeeper) -> None:
    wait_until(lambda: keeper.state.status is SourceStatus.LIVE)
    cable.pulled.set()
    wait_until(lambda: keeper.state.status is SourceStatus.LOST and keeper.state.attempt >= 3)
    assert keeper.state.error == "there is no fake camera" and keeper.state.losses == 1
    assert cable.made[0].closed
    seen = len(keeper.pictures)
    cable.pulled.clear()
    wait_until(lambda: keeper.state.status is SourceStatus.LIVE and len(keeper.pictures) > seen)
    assert keeper.state.error is None and keeper.state.attempt == 0


def test_a_camera_that_hangs_is_left_and_another_opened(cable: FakeCable, keeper: SourceKeeper) -> None:
    wait_until(lambda: keeper.state.status is SourceStatus.LIVE)
    cable.hang.set()
    time.sleep(0.1)
    wait_until(lambda: keeper.check(time.monotonic()) or keeper.state.status is SourceStatus.LOST)
    assert keeper.state.error == "it does not answer"
    cable.hang.clear()
    wait_until(lambda: keeper.check(time.monotonic()) or keeper.state.status is SourceStatus.LIVE)
    assert len(cable.made) >= 2


def test_no_more_threads_are_lost_than_allowed(cable: FakeCable, keeper: SourceKeeper) -> None:
    cable.hang.set()
    end_s = time.monotonic() + 2.5
    while time.monotonic() < end_s:
        keeper.check(time.monotonic())
        time.sleep(0.02)
    threads = [thread for thread in threading.enumerate() if thread.name == "idm-rt camera"]
    assert len(threads) <= 3 and len(cable.made) <= 3  # two lost, one that may be about to be


def test_a_picture_from_a_thread_that_was_given_up_is_not_shown(cable: FakeCable, keeper: SourceKeeper) -> None:
    wait_until(lambda: bool(keeper.pictures))
    cable.hang.set()
    time.sleep(0.1)
    wait_until(lambda: keeper.check(time.monotonic()) or keeper.state.losses == 1)
    keeper.close()
    count = len(keeper.pictures)
    cable.let_go.set()
    wait_until(lambda: all(camera.closed for camera in cable.made))
    assert len(keeper.pictures) == count


def test_a_raising_driver_is_a_loss_like_any_other(cable: FakeCable) -> None:
    class Broken:
        interval_s = 0.01

        def read(self):
            raise ZeroDivisionError("driver\nbug")

        def close(self):
            pass

    keeper = SourceKeeper(
        lambda stop: Broken(), lambda image, captured_s: None, clock=time.monotonic, output_fps=30.0,
        hang_after_s=1.0, backoff=Backoff(first_s=0.01, longest_s=0.02),
    )  # fmt: skip
    keeper.start()
    wait_until(lambda: keeper.state.attempt >= 2)
    assert keeper.state.error == "ZeroDivisionError: driver bug" and keeper.close()


def test_pictures_that_come_much_too_fast_are_passed_over(cable: FakeCable) -> None:
    class Fast:
        interval_s = 0.002

        def __init__(self):
            self.left = 200

        def read(self):
            time.sleep(self.interval_s)
            self.left -= 1
            return np.zeros((4, 4, 3), np.uint8) if self.left else None

        def close(self):
            pass

    times: list[float] = []
    keeper = SourceKeeper(
        lambda stop: Fast(), lambda image, captured_s: times.append(captured_s), clock=time.monotonic,
        output_fps=30.0, hang_after_s=5.0,
    )  # fmt: skip
    keeper.start()
    wait_until(lambda: keeper.state.status is SourceStatus.ENDED)
    assert len(times) > 2 and min(b - a for a, b in zip(times, times[1:], strict=False)) >= 0.6 / 30.0
    assert keeper.close()
