"""The output in simulated time: a steady rate, no frozen picture, no growing delay, whatever happens around it."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest
from camera_fakes import SIZE, CameraSimulation, OutputBench
from hypothesis import given, settings
from hypothesis import strategies as st

from idm_rt.live_records import Cause
from idm_rt.types import Frame
from idm_rt.virtual_camera.metronome import Metronome
from idm_rt.virtual_camera.pictures import placeholder
from idm_rt.virtual_camera.records import Shown, SourceState, SourceStatus

TICK = 1.0 / 30.0
LOST = placeholder(SIZE, "The camera is not connected", "trying again")


def is_placeholder(image: np.ndarray) -> bool:
    return not image.flags.writeable


@given(st.floats(1.0, 120.0), st.lists(st.floats(0.0, 3.0), min_size=1, max_size=60))
def test_the_metronome_serves_or_misses_each_tick_once_and_never_drifts(fps: float, waits: list[float]) -> None:
    metronome, now_s, served, expected = Metronome(fps, 100.0), 100.0, 0, 0
    for wait_s in waits:
        now_s += wait_s
        first, count = metronome.serve(now_s)
        if count:
            assert first == expected
            assert metronome.due_s > now_s - 1e-4 / fps  # nothing that is due is left
            expected, served = first + count, served + 1
    assert metronome.tick == expected == served + metronome.missed
    assert expected == pytest.approx((now_s - 100.0) * fps + 1, abs=1.001)


def test_a_served_tick_is_not_served_again() -> None:
    metronome = Metronome(30.0, 0.0)
    assert metronome.serve(0.0) == (0, 1)
    assert metronome.serve(0.01) == (1, 0)
    assert metronome.serve(0.14) == (1, 4) and metronome.missed == 3


def test_a_steady_source_goes_out_enhanced_at_every_tick() -> None:
    bench = OutputBench()
    for value in range(30):
        bench.put(value + 1)
        bench.run(TICK)
    assert [int(write.image[0, 0, 0]) for write in bench.sink.writes][:5] == [1, 2, 3, 4, 5]
    stats = bench.loop.stats()
    assert stats.missed == 0 and stats.shown == {Shown.ENHANCED: stats.written} and stats.fps == pytest.approx(30.0)
    assert stats.delay_ms["p95_ms"] <= TICK * 1000.0


def test_without_fresh_frames_a_placeholder_comes_after_half_a_second() -> None:
    bench = OutputBench()
    bench.put(200)
    writes = bench.run(2.0)
    shown_s = [write.at_s - 1000.0 for write in writes if write.image[0, 0, 0] == 200]
    assert max(shown_s) == pytest.approx(0.5, abs=TICK)
    assert all(is_placeholder(write.image) for write in writes if write.at_s - 1000.0 > 0.5 + TICK)
    assert len(writes) == 60 and bench.loop.stats().missed == 0


def test_the_placeholder_says_what_is_the_matter() -> None:
    bench = OutputBench()
    seen = []
    for status in SourceStatus:
        bench.state = SourceState(status=status)
        seen.append(bench.run(2 * TICK)[-1].image)
    assert all(is_placeholder(image) for image in seen) and len({id(image) for image in seen}) == len(seen)


def test_text_is_readable_and_fits() -> None:
    for size in ((640, 360), (1280, 720), (240, 426)):
        image = placeholder(size, "The camera is not connected", "trying again")
        bright = np.argwhere(image.max(axis=2) > 120)
        assert len(bright) > 200
        assert bright[:, 1].min() > 0 and bright[:, 1].max() < size[0] - 1  # nothing is cut off
    assert placeholder((2, 2), "The end", "").shape == (2, 2, 3)


def test_a_slow_source_is_not_taken_for_dead() -> None:
    bench = OutputBench()
    bench.state = SourceState(status=SourceStatus.LIVE, interval_s=1.0)
    bench.put(200)
    assert not any(is_placeholder(write.image) for write in bench.run(1.0))


def test_should_the_worker_fall_silent_the_original_goes_out() -> None:
    bench = OutputBench()
    bench.put(200)
    for _ in range(60):
        bench.composer.offer_raw(Frame(np.full((4, 4, 3), 50, np.uint8), captured_s=bench.clock()))
        bench.run(TICK)
    values = [int(write.image[0, 0, 0]) for write in bench.sink.writes]
    assert values[0] == 200 and values[-1] == 50 and set(values) == {200, 50}
    assert bench.loop.stats().shown[Shown.ORIGINAL] > 30


def test_bypassed_frames_count_as_original() -> None:
    bench = OutputBench()
    bench.put(9, bypassed=Cause.FAULT)
    bench.run(TICK / 2)
    assert bench.loop.stats().shown == {Shown.ORIGINAL: 1}


def test_compare_shows_both_in_the_same_size() -> None:
    bench = OutputBench()
    bench.compare = True
    bench.put(255)
    image = bench.run(TICK / 2)[-1].image
    assert image.shape == (4, 4, 3) and image.max() > 100 and not is_placeholder(image)


@settings(deadline=None, max_examples=25)
@given(st.lists(st.floats(0.0, 0.25), min_size=5, max_size=40), st.integers(0, 3))
def test_a_slow_sink_makes_no_queue(works: list[float], seed: int) -> None:
    """Frames come at 30 a second while the sink takes up to 0.25 s for each: what is shown is always the newest."""
    rng = np.random.default_rng(seed)
    bench = OutputBench(work_s=lambda: works[int(rng.integers(len(works)))])
    captured: list[float] = []

    def arrive() -> None:
        captured.append(bench.clock())
        bench.put(len(captured) % 250 + 1)
        bench.clock.call_at(bench.clock() + TICK, arrive)

    arrive()
    writes = bench.run(20.0)
    ages = []
    for write in writes:
        newest = max(i for i, at_s in enumerate(captured) if at_s <= write.at_s + 1e-9)
        shown = int(write.image[0, 0, 0])
        assert shown == (newest + 1) % 250 + 1 or shown == newest % 250 + 1, "an older frame than the newest was shown"
        ages.append(write.at_s - captured[newest])
    assert max(ages) <= 2 * TICK
    stats = bench.loop.stats()
    assert stats.written + stats.missed == stats.ticks
    assert sum(write.count for write in writes) == stats.ticks  # a file would get every tick


def test_an_unplugged_device_is_opened_again_and_the_rate_goes_on() -> None:
    bench = OutputBench()
    bench.put(1)
    bench.run(0.2)
    bench.sink.fail = True
    bench.run(1.0)
    assert bench.loop.stats().sink_losses >= 1 and bench.loop.stats().sink_error == "the recording sink was unplugged"
    bench.sink.fail = False
    assert bench.run(6.0), "nothing was written after the device was back"
    assert bench.loop.stats().sink_error is None
    gaps = [b.at_s - a.at_s for a, b in pairwise(bench.sink.writes[-60:])]
    assert max(gaps) == pytest.approx(TICK)


def test_it_ends_after_the_ticks_that_were_asked_for() -> None:
    bench = OutputBench(max_ticks=7)
    for _ in range(20):
        bench.clock.advance(0.1)
        bench.loop.step()
    assert bench.loop.finished and sum(write.count for write in bench.sink.writes) == 7


@pytest.mark.parametrize("slowness", [1.0, 3.0])
def test_the_whole_camera_keeps_its_promises_through_an_outage(slowness: float) -> None:
    """60 s with the engine in time or three times too slow, and the camera away from second 20 to 24."""
    start_s = 1000.0
    simulation = CameraSimulation(
        alive=lambda now_s: not 20.0 <= now_s - start_s < 24.0,
        base_s=0.010 * slowness, step_s=0.015 * slowness,
    )  # fmt: skip
    simulation.run(60.0)
    writes = simulation.sink.writes
    stats = simulation.output.stats()
    assert stats.missed == 0 and len(writes) == stats.ticks >= 1799
    assert max(b.at_s - a.at_s for a, b in pairwise(writes)) == pytest.approx(TICK)  # a steady rate throughout
    for write in writes:
        since_s = write.at_s - start_s - 20.0
        if 0.5 + 2 * TICK < since_s < 4.0:
            assert is_placeholder(write.image), f"a frozen picture {since_s:.2f} s after the camera was lost"
        elif since_s < 0.0 or since_s > 4.0 + 3 * TICK:
            assert not is_placeholder(write.image) or write.at_s < start_s + 3 * TICK
    assert stats.delay_ms["p99_ms"] <= (2 + 2) * TICK * 1000.0  # the worker's deadline, and a tick on each side
    late = simulation.output._delays_ms
    assert max(list(late)[-300:]) <= 4 * TICK * 1000.0  # no older at the end than at the start
