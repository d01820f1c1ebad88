"""Deadlines, order and exactly-once of a live stream, in simulated time: sixty seconds take a moment."""

from __future__ import annotations

import random
from dataclasses import replace
from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from live_fakes import CAMERA, FPS30, RESTORED, LiveSimulation, camera_frame

from idm_rt.engine_thread import WorkerOptions, timestamp_ms_of
from idm_rt.live_records import Cause, LiveControls, Outcome
from idm_rt.types import Frame

TINY = 1e-6
DEADLINE_FRAMES = WorkerOptions().deadline_frames


def causes(out) -> set[Cause | None]:
    return {live.bypassed for _, live in out}


def gaps(out) -> list[float]:
    """Seconds between neighbouring emissions: how long a picture stands still."""
    return [b - a for (a, _), (b, _) in pairwise(out)]


def check_books(simulation: LiveSimulation) -> None:
    """What holds for every stream at every time."""
    stats = simulation.stats()
    pending = stats.frames_in - stats.frames_out - stats.dropped - stats.superseded
    assert 0 <= pending <= 2  # one in the engine, one waiting
    assert len(simulation.out) + stats.unread == stats.frames_out
    assert simulation.largest_slots <= 1
    pts = [live.frame.pts for _, live in simulation.out]
    assert pts == sorted(set(pts))  # in order, none twice
    for _, live in simulation.out:
        assert live.frame.pts == live.original.pts and live.frame.time_base == live.original.time_base
        assert (live.frame is live.original) == (live.bypassed is not None)
        assert live.original.image is CAMERA and (live.bypassed is not None or live.frame.image is RESTORED)


@pytest.mark.parametrize("fps", [15, 30, 60])
def test_a_fast_engine_restores_every_frame_within_its_own_work(fps):
    interval_s = 1.0 / fps
    simulation = LiveSimulation(interval_s=interval_s, base_s=0.3 * interval_s, step_s=0.4 * interval_s)
    out = simulation.run(10)
    check_books(simulation)
    stats = simulation.stats()
    assert len(out) >= 10 * fps - 2 and causes(out) == {None}
    assert (stats.dropped, stats.superseded, stats.unread, stats.bypassed) == (0, 0, 0, {})
    assert stats.age_ms["p95_ms"] == pytest.approx(700 * interval_s, abs=0.01)
    assert stats.work_ms["p50_ms"] == pytest.approx(700 * interval_s, abs=0.01)
    assert stats.stages_ms["restore"]["p50_ms"] == pytest.approx(400 * interval_s, abs=0.01)
    assert stats.interval_ms == pytest.approx(1000 * interval_s, abs=0.01)


@pytest.mark.parametrize("steps", [1, 2, 4])
@pytest.mark.parametrize("network_share", [0.1, 0.5, 0.9])
def test_three_times_overload_for_a_minute(steps, network_share):
    """Frame age under two frame times plus the work, no standing picture, nothing grows."""
    work_s = 3.0 * FPS30
    base_s, step_s = (1 - network_share) * work_s, network_share * work_s / steps
    simulation = LiveSimulation(steps=steps, base_s=base_s, step_s=step_s)
    out = simulation.run(60)
    check_books(simulation)
    assert max(live.age_s for _, live in out) <= 2 * FPS30 + work_s
    assert max(live.age_s for _, live in out) <= DEADLINE_FRAMES * FPS30 + TINY  # the bound by design, and tighter
    later = [live.age_s for when, live in out if when > out[0][0] + 30]
    earlier = [live.age_s for when, live in out if when <= out[0][0] + 30]
    assert max(later) <= max(earlier) + TINY
    assert max(gaps(out)) <= (DEADLINE_FRAMES + 1) * FPS30 + TINY
    assert len(out) > 0.9 * 60 * 30
    stats = simulation.stats()
    assert stats.frames_out > 1500 and stats.age_ms["count"] <= 1000 and stats.work_ms["count"] <= 1000
    assert simulation.clock.agenda_length() < 10


def test_overload_ends_and_the_restored_picture_comes_back():
    simulation = LiveSimulation(slowness=lambda now_s: 5.0 if 1005 <= now_s < 1020 else 1.0)
    assert causes(simulation.run(5)) == {None}
    assert simulation.run(15)[-1][1].bypassed is Cause.GOVERNOR
    simulation.run(20)
    assert causes(simulation.run(10)) == {None}
    assert simulation.stats().level == "1 step"
    check_books(simulation)


@pytest.mark.parametrize("hang_s", [0.2, 1.0, 3.0])
def test_while_the_engine_hangs_the_original_goes_on(hang_s):
    """The watch emits the overdue frame, the source's own call the next ones; the delay does not grow."""
    simulation = LiveSimulation(slowness=lambda now_s: hang_s / 0.018 if 1001.98 < now_s < 1002.02 else 1.0)
    before = simulation.run(1.9)
    during = simulation.run(0.1 + hang_s)
    after = simulation.run(3)
    check_books(simulation)
    assert causes(before) == {None}
    assert {Cause.DEADLINE, Cause.BUSY} <= causes(during)
    assert max(gaps(simulation.out)) <= (DEADLINE_FRAMES + 1) * FPS30 + TINY
    assert max(live.age_s for _, live in during) <= DEADLINE_FRAMES * FPS30 + TINY
    busy = [live.age_s for _, live in during if live.bypassed is Cause.BUSY]
    assert len(busy) > 25 * (hang_s - 0.1) and max(busy) < TINY  # at once
    assert causes(after[5:]) == {None}  # one long call is a spike, no reason to step down
    assert simulation.stats().steps_down == 0


def test_a_frame_that_waited_too_long_is_not_begun():
    """While frame 1 takes 60 ms frame 2 waits 27: another 60 would be too late, so frame 3 is taken instead."""
    simulation = LiveSimulation(base_s=0.030, step_s=0.030)
    simulation.run(0.3)
    assert simulation.stats().bypassed.get("late", 0) >= 1
    assert simulation.stats().level == "1 step" or simulation.stats().steps_down > 0
    late = [live.age_s for _, live in simulation.out if live.bypassed is Cause.LATE]
    assert max(late) < FPS30
    check_books(simulation)


def test_a_fault_shows_the_original_and_the_governor_learns_nothing_from_it():
    simulation = LiveSimulation()
    simulation.run(1)
    simulation.enhancer.fault = "EngineError: lost device"
    simulation.enhancer.base_s = 0.022  # with the network 0.9 of a frame time
    faulty = simulation.run(2)[2:]
    assert causes(faulty) == {Cause.FAULT}
    simulation.enhancer.fault, simulation.enhancer.base_s = None, 0.010
    assert causes(simulation.run(1)[2:]) == {None}
    stats = simulation.stats()
    assert set(stats.faults) == {"EngineError: lost device"} and stats.steps_down == 0
    check_books(simulation)


def test_an_enhancer_that_raises_is_a_fault_too(caplog):
    simulation = LiveSimulation()
    simulation.enhancer.error = ValueError("boom")
    assert causes(simulation.run(1)) == {Cause.FAULT}
    assert simulation.stats().faults == {"ValueError: boom": simulation.stats().bypassed["fault"]}
    assert sum("boom" in record.getMessage() for record in caplog.records) == 1
    check_books(simulation)


def test_faults_without_end_are_counted_in_bounded_memory():
    simulation = LiveSimulation()
    for index in range(200):
        simulation.enhancer.error = ValueError(f"boom {index}")
        simulation.run(0.1)
    assert len(simulation.stats().faults) <= 33 and sum(simulation.stats().faults.values()) > 500


def test_without_an_engine_and_when_switched_off_frames_pass_at_once():
    simulation = LiveSimulation(opened=False)
    out = simulation.run(1)
    assert causes(out) == {Cause.OPENING} and max(live.age_s for _, live in out) == 0.0
    simulation.delivery.engine_opened((1,))
    assert causes(simulation.run(1)) == {None}
    simulation.delivery.set_controls(LiveControls(enabled=False))
    out = simulation.run(1)
    assert causes(out[1:]) == {Cause.OFF} and max(live.age_s for _, live in out[1:]) == 0.0
    simulation.delivery.set_controls(LiveControls(enabled=True))
    assert causes(simulation.run(1)) == {None}
    assert max(gaps(simulation.out)) <= 2 * FPS30 + TINY  # toggling never freezes the picture
    check_books(simulation)


def test_losing_the_engine_emits_what_it_held():
    simulation = LiveSimulation()
    simulation.run(0.5)
    for index in (900, 901):
        simulation.delivery.submit(replace(camera_frame(index), captured_s=None))
        job = simulation.delivery.inbound.take()
        if index == 900:
            assert job is not None and simulation.delivery.begin(job) is not None
    simulation.delivery.engine_lost()
    last = simulation.delivery.outbound.take()
    assert last is not None and last.bypassed is Cause.OPENING and last.frame.pts == camera_frame(901).pts
    assert simulation.delivery.current is None and not simulation.delivery.engine_open


def test_what_an_abandoned_engine_finishes_is_ignored():
    simulation = LiveSimulation()
    simulation.clock.call_at(1000.505, simulation.delivery.engine_lost)  # in the middle of a frame's work
    out = simulation.run(1)
    frames = [live for when, live in out if 1000.49 < when < 1000.53]
    assert [live.bypassed for live in frames] == [Cause.OPENING]
    assert simulation.stats().superseded == 0
    check_books(simulation)


def test_an_abandoned_engine_does_not_take_the_next_ones_frame_away():
    simulation = LiveSimulation()
    delivery = simulation.delivery

    def begin(index: int):
        delivery.submit(camera_frame(index))
        job = delivery.inbound.take()
        assert job is not None
        plan = delivery.begin(job)
        assert plan is not None
        return job, plan

    old_job, old_plan = begin(0)
    delivery.engine_lost()
    delivery.engine_opened((1, 2, 4))
    new_job, new_plan = begin(1)
    delivery.finish(old_job, old_plan, Outcome(old_job.frame, work_s=9.0))
    assert delivery.current is new_job and simulation.stats().work_ms["count"] == 0
    delivery.finish(new_job, new_plan, Outcome(replace(new_job.frame, image=RESTORED), work_s=0.01))
    live = delivery.outbound.take()
    assert live is not None and live.original is new_job.frame and live.bypassed is None


def test_controls_reach_the_enhancer_and_steps_stay_below_the_users():
    simulation = LiveSimulation(steps=2, step_s=0.004)
    simulation.run(1)
    simulation.delivery.set_controls(LiveControls(steps=4, strength=0.25))
    simulation.run(1)
    first, last = simulation.enhancer.calls[0], simulation.enhancer.calls[-1]
    assert (first.steps, first.strength, last.steps, last.strength) == (2, 1.0, 4, 0.25)
    assert simulation.stats().levels[0] == "4 steps"
    with pytest.raises(ValueError):
        LiveControls(strength=1.5)


def test_a_model_with_few_steps_limits_the_ladder_and_refuses_what_it_lacks():
    simulation = LiveSimulation(steps=4, offered_steps=(2,))
    simulation.run(1)
    assert {call.steps for call in simulation.enhancer.calls} == {2}
    before = simulation.delivery.controls
    with pytest.raises(ValueError, match="steps is 1"):
        simulation.delivery.set_controls(LiveControls(steps=1))
    assert simulation.delivery.controls is before and simulation.stats().level == "2 steps"


def test_at_the_lower_level_every_other_frame_carries_the_correction():
    simulation = LiveSimulation(base_s=0.008, step_s=0.024)
    simulation.run(2)
    out = simulation.run(5)
    assert simulation.stats().level == "every other frame" and causes(out) == {None}
    carried = [call.carry for call in simulation.enhancer.calls[-60:]]
    assert carried.count(True) == 30 and all(a != b for a, b in pairwise(carried))


def test_at_the_bypass_level_frames_go_at_once_even_while_others_are_measured():
    simulation = LiveSimulation(slowness=lambda _: 6.0)
    simulation.run(3)
    calls = len(simulation.enhancer.calls)
    out = simulation.run(30)
    assert causes(out) == {Cause.GOVERNOR} and max(live.age_s for _, live in out) < TINY
    assert len(out) >= 30 * 30 - 1
    assert 5 < len(simulation.enhancer.calls) - calls < 60
    check_books(simulation)


def test_age_counts_from_the_capture_and_the_deadline_from_the_arrival():
    simulation = LiveSimulation(opened=False)
    simulation.delivery.submit(replace(camera_frame(0), captured_s=simulation.clock() - 0.2))
    live = simulation.delivery.outbound.take()
    assert live is not None and live.age_s == pytest.approx(0.2)
    simulation.delivery.engine_opened((1,))
    simulation.delivery.submit(replace(camera_frame(1), captured_s=simulation.clock() - 0.2))
    assert simulation.delivery.watch() == pytest.approx(DEADLINE_FRAMES * FPS30)


def test_after_the_end_frames_are_ignored():
    simulation = LiveSimulation()
    simulation.run(1)
    simulation.delivery.inbound.close()
    seen = simulation.stats().frames_in
    simulation.run(1)
    assert simulation.stats().frames_in == seen


@pytest.mark.parametrize(("before", "after"), [(30, 60), (30, 15), (60, 15)])
def test_a_change_of_the_frame_rate_is_followed(before, after):
    simulation = LiveSimulation(interval_s=1 / before, base_s=0.004, step_s=0.006)
    simulation.run(3)
    simulation.interval_s = 1 / after
    simulation.run(2)
    assert causes(simulation.run(3)) == {None}
    assert simulation.stats().interval_ms == pytest.approx(1000 / after, rel=0.01)
    check_books(simulation)


def test_the_pipelines_time_is_the_streams():
    assert timestamp_ms_of(camera_frame(30)) == pytest.approx(1000.0)
    assert timestamp_ms_of(Frame(CAMERA, captured_s=2.5)) == pytest.approx(2500.0)
    assert timestamp_ms_of(Frame(CAMERA, pts=7)) == 0.0


@settings(max_examples=40, deadline=None)
@given(
    seed=st.integers(0, 2**16),
    fps=st.sampled_from([15, 30, 60]),
    steps=st.sampled_from([1, 4]),
    load=st.floats(0.1, 6.0),
    noise=st.floats(0.0, 1.0),
    jitter=st.floats(0.0, 1.5),
    events=st.lists(st.sampled_from(["off", "on", "fault", "raise", "heal", "hang", "lost", "open"]), max_size=12),
)
def test_any_stream_stays_in_order_in_time_and_in_bounds(seed, fps, steps, load, noise, jitter, events):
    """Whatever the load, the network's jitter, the user and the faults: see ``check_books``, and the age's bound."""
    rng, interval_s = random.Random(seed), 1.0 / fps
    simulation = LiveSimulation(
        steps=steps, interval_s=interval_s, base_s=0.3 * load * interval_s, step_s=0.7 * load * interval_s / steps
    )
    enhancer, delivery = simulation.enhancer, simulation.delivery
    simulation.jitter = lambda: rng.uniform(0, jitter) * interval_s
    plain = lambda _: 1.0 + noise * rng.uniform(-0.9, 3.0)  # noqa: E731
    enhancer.slowness = plain
    for event in events:
        if event in ("on", "off"):
            delivery.set_controls(LiveControls(event == "on", steps))
        elif event == "fault":
            enhancer.fault = "EngineError: x"
        elif event == "raise":
            enhancer.error = RuntimeError("x")
        elif event == "heal":
            enhancer.fault = enhancer.error = None
        elif event == "hang":
            until_s = simulation.clock() + 0.2
            enhancer.slowness = lambda now_s, until_s=until_s: 50.0 if now_s < until_s else plain(now_s)
        elif event == "lost":
            delivery.engine_lost()
        elif event == "open" and not delivery.engine_open:
            delivery.engine_opened(enhancer.offered_steps)
        simulation.run(rng.uniform(0.05, 1.0))
        check_books(simulation)
        assert all(call.steps is not None and call.steps <= steps for call in enhancer.calls)
    simulation.run(1.0)
    check_books(simulation)
    # jitter stretches the measured interval by at most its own spread over one window
    longest_s = max(FPS30, interval_s) * (1 + jitter)
    assert all(live.age_s <= DEADLINE_FRAMES * longest_s + TINY for _, live in simulation.out)
    assert max(gaps(simulation.out)) <= (DEADLINE_FRAMES + 1) * longest_s + TINY  # the picture never stands still
    assert simulation.clock.agenda_length() < 20
