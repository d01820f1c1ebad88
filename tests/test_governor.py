"""The ladder under simulated load: down fast, up with a margin, no see-saw, never above the user's steps."""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass, field

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from idm_rt.governor import BYPASS, Governor, GovernorOptions, ladder

FPS30 = 1.0 / 30.0
TOP = 3 * (GovernorOptions().up_after_max_s + GovernorOptions().trial_s)  # s, generous for the whole way up


@dataclass
class Machine:
    """A computer that runs a governed stream: what a frame costs, and when the next can be taken."""

    governor: Governor
    base_s: float = 0.010  # tracker and the rest
    step_s: float = 0.004  # network, per step
    slowness: Callable[[float], float] = lambda now_s: 1.0  # factor on all work, over time
    interval_s: float = FPS30
    now_s: float = 0.0
    history: list[tuple[float, str]] = field(default_factory=list)  # the level after each frame

    def run(self, seconds: float) -> list[str]:
        """Let the stream run; returns the levels of that time, one per frame."""
        first, end_s = len(self.history), self.now_s + seconds
        while self.now_s < end_s:
            self.frame()
            self.history.append((self.now_s, self.governor.level.name))
        return [name for _, name in self.history[first:]]

    def frame(self) -> None:
        governor, came_s = self.governor, self.now_s
        work_s = 0.0
        if governor.level.steps or governor.probe_due(came_s):
            plan = governor.plan()
            factor = self.slowness(came_s)
            network_s = 0.0 if plan.carry else self.step_s * plan.steps * factor
            work_s = self.base_s * factor + network_s
            governor.observe(plan, work_s, network_s, self.interval_s, came_s + work_s)
        frames = max(1, -int(-(work_s - 1e-9) // self.interval_s))  # the next frame that finds the engine free
        self.now_s = came_s + frames * self.interval_s


def changes(names: list[str]) -> int:
    return sum(a != b for a, b in zip(names, names[1:], strict=False))


def test_ladder_never_exceeds_the_users_steps_or_the_models():
    assert [level.name for level in ladder(4)] == ["4 steps", "2 steps", "1 step", "every other frame", "bypass"]
    assert [level.steps for level in ladder(1)] == [1, 1, 0] and [level.every for level in ladder(1)] == [1, 2, 1]
    assert [level.steps for level in ladder(4, (2, 1))] == [2, 1, 1, 0]
    assert [level.steps for level in ladder(4, (2, 4))] == [4, 2, 2, 0]
    assert ladder(2)[-1] is BYPASS
    with pytest.raises(ValueError, match="steps is 1, expected at least 2"):
        ladder(1, (2, 4))


@pytest.mark.parametrize("steps", [1, 2, 4])
def test_enough_time_keeps_the_users_level(steps):
    machine = Machine(Governor(steps), slowness=lambda now_s: 1.0)
    assert set(machine.run(30)) == {machine.governor.levels[0].name}
    assert (machine.governor.counts.downs, machine.governor.counts.ups) == (0, 0)


@pytest.mark.parametrize(
    ("factor", "settled"),
    [(1.0, "4 steps"), (1.4, "2 steps"), (2.0, "1 step"), (2.4, "every other frame"), (4.0, "bypass")],
)
def test_each_load_has_its_level(factor, settled):
    """4 steps cost 26 ms, 2 cost 18, 1 costs 14, every other frame 12 on average; there is room for 30."""
    machine = Machine(Governor(4), slowness=lambda now_s: factor)
    machine.run(20)
    late = machine.run(20)
    assert late.count(settled) / len(late) > 0.95


@pytest.mark.parametrize("fps", [15, 30, 60])
def test_sustained_overload_steps_down_within_a_few_frames(fps):
    interval_s = 1.0 / fps
    base_s, step_s = 0.2 * interval_s, 0.5 * interval_s
    governor = Governor(1)
    machine = Machine(governor, base_s, step_s, lambda now_s: 1.0 if now_s < 5 else 3.0, interval_s)
    assert set(machine.run(5)) == {"1 step"}
    names = machine.run(60 * interval_s)
    assert "1 step" not in names[2:]
    assert names[-1] == "bypass"  # even every other frame would cost 1.35 intervals


def test_a_slight_overload_steps_down_within_a_second():
    machine = Machine(Governor(1), 0.010, 0.022)  # load 0.96
    machine.run(1.0)
    assert machine.governor.level.name == "every other frame"


@pytest.mark.parametrize("spike", [2.0, 10.0, 1000.0])
def test_a_single_spike_does_not_step_down(spike):
    """One slow frame every two seconds, whatever its length."""
    governor = Governor(1)
    machine = Machine(governor, 0.010, 0.008)
    slow_at = [2.0]

    def slowness(now_s: float) -> float:
        if now_s < slow_at[0]:
            return 1.0
        slow_at[0] = now_s + 2.0 + 0.018 * spike
        return spike

    machine.slowness = slowness
    assert set(machine.run(60)) == {"1 step"} and governor.counts.downs == 0
    assert machine.now_s > slow_at[0] - 2.0 - 0.018 * spike  # it did meet spikes


@pytest.mark.parametrize("fps", [15, 30, 60])
@pytest.mark.parametrize("steps", [1, 4])
def test_when_the_load_vanishes_the_users_level_comes_back(steps, fps):
    interval_s = 1.0 / fps
    machine = Machine(Governor(steps), 0.2 * interval_s, 0.12 * interval_s, lambda _: 8.0, interval_s)
    assert machine.run(60)[-1] == "bypass"
    machine.slowness = lambda _: 1.0
    names = machine.run(TOP)
    assert names[-1] == machine.governor.levels[0].name
    order = [level.name for level in machine.governor.levels]
    ranks = [order.index(name) for name in names]
    assert ranks == sorted(ranks, reverse=True)  # straight up, no step back


def test_a_step_up_that_has_proved_right_ends_the_long_waits():
    """After failed measurements the first step up takes its time; the next ones need no more than their trial."""
    machine = Machine(Governor(4), slowness=lambda _: 8.0)
    assert machine.run(60)[-1] == "bypass"
    machine.slowness = lambda _: 1.0
    options = GovernorOptions()
    assert machine.run(options.up_after_max_s + 3 * (options.trial_s + 0.2) + 1.0)[-1] == "4 steps"


def test_a_step_up_waits_for_a_lasting_margin():
    machine = Machine(Governor(1), 0.010, 0.010, lambda now_s: 2.0 if now_s < 3 else 1.0)
    machine.run(3)
    assert machine.governor.level.name == "every other frame"
    assert set(machine.run(GovernorOptions().up_after_s - 0.1)) == {"every other frame"}
    assert machine.run(1.5)[-1] == "1 step"


def test_every_other_frame_runs_the_network_and_the_rest_carry():
    governor = Governor(1)
    Machine(governor, 0.010, 0.022).run(1.0)
    assert governor.level.every == 2
    plans = [governor.plan() for _ in range(6)]
    assert [plan.carry for plan in plans].count(True) == 3
    assert all(a.carry != b.carry for a, b in zip(plans, plans[1:], strict=False))


def test_at_the_bypass_level_frames_are_measured_seldom():
    governor = Governor(1)
    machine = Machine(governor, slowness=lambda _: 20.0)
    machine.run(2)
    worked_on = governor.counts.frames.get(BYPASS.name, 0)
    machine.run(60)
    worked_on = governor.counts.frames[BYPASS.name] - worked_on
    bursts = 60 / GovernorOptions().up_after_max_s
    assert bursts * 0.7 <= worked_on / GovernorOptions().probe_frames <= bursts + 3


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("mean_load", [0.5, 0.7, 0.8, 0.85, 0.9, 0.95, 1.1])
def test_noise_at_the_border_makes_no_see_saw(mean_load, seed):
    """Work that varies by 20 % (heavy tail), with the mean load anywhere around the limits, for five minutes."""
    rng = random.Random(seed)
    work_s = mean_load * FPS30
    machine = Machine(
        Governor(1), 0.4 * work_s, 0.6 * work_s, lambda _: max(0.5, rng.gauss(1.0, 0.2)) + (rng.random() < 0.02)
    )
    machine.run(30)
    names = machine.run(300)
    assert changes(names) <= 2 * 300 / GovernorOptions().up_after_max_s
    if mean_load <= 0.5:
        assert changes(names) == 0 and names[-1] == "1 step"
    if mean_load >= 1.1:
        assert names.count("1 step") < 0.1 * len(names)


def test_a_load_that_comes_and_goes_with_the_step_up_is_met_with_longer_waits():
    """The worst neighbour: it takes the machine whenever we use it. Each mistake doubles the wait, up to the limit."""
    governor = Governor(1)
    machine = Machine(governor, 0.010, 0.010)
    machine.slowness = lambda _: 2.0 if governor.level.name == "1 step" else 1.0
    names = machine.run(120)
    assert changes(names) <= 2 * (120 / GovernorOptions().up_after_max_s + 3)
    assert governor.counts.taken_back >= 3
    machine.slowness = lambda _: 1.0
    assert machine.run(TOP)[-1] == "1 step"
    begin = machine.now_s
    machine.slowness = lambda now_s: 2.0 if now_s < begin + 1 else 1.0
    machine.run(1)
    assert machine.run(GovernorOptions().up_after_s + 1.5)[-1] == "1 step"  # an honest step up has reset the wait


def test_frame_rate_changes_move_the_level():
    """The same work on the same machine: 60 frames per second are too many, 30 fit, 15 fit easily."""
    machine = Machine(Governor(4), 0.006, 0.004, interval_s=FPS30)
    assert machine.run(5)[-1] == "4 steps"
    machine.interval_s = 1 / 60
    assert machine.run(5)[-1] in ("2 steps", "1 step")
    machine.interval_s = 1 / 15
    assert machine.run(10)[-1] == "4 steps"


def test_frames_without_a_face_do_not_make_the_network_look_cheap():
    """Nobody in the picture costs nothing; that says nothing about the level with a face."""
    machine = Machine(Governor(1), 0.010, 0.020)
    machine.slowness = lambda now_s: 1.4 if now_s < 5 else 1.0
    machine.run(5)
    assert machine.governor.level.name == "every other frame"
    governor, downs = machine.governor, machine.governor.counts.downs
    for index in range(300):  # 10 s without a face
        governor.observe(governor.plan(), 0.005, 0.0, FPS30, 5.0 + index * FPS30)
    assert governor.level.name == "every other frame"
    machine.now_s = 15.0
    machine.slowness = lambda _: 1.4
    machine.run(5)
    assert governor.counts.downs <= downs + 1


def test_more_steps_start_at_the_top_with_nothing_known():
    governor = Governor(1)
    Machine(governor, slowness=lambda _: 20.0).run(2)
    assert governor.level is BYPASS
    governor.configure(4)
    assert governor.level.name == "4 steps" and governor.expected_s() is None


@settings(max_examples=50, deadline=None)
@given(
    steps=st.sampled_from([1, 2, 4]),
    fps=st.sampled_from([15, 24, 30, 60]),
    base=st.floats(0.01, 0.30),
    per_step=st.floats(0.005, 0.10),
    loads=st.lists(st.tuples(st.floats(0.2, 30.0), st.floats(0.1, 6.0)), max_size=8),
    seed=st.integers(0, 2**16),
)
def test_never_above_the_users_steps_and_always_back_when_the_load_vanishes(steps, fps, base, per_step, loads, seed):
    """Any sequence of loads; ``base`` and ``per_step`` are in frame intervals and fit the user's level when alone."""
    rng = random.Random(seed)
    interval_s = 1.0 / fps
    machine = Machine(Governor(steps), base * interval_s, per_step * interval_s, interval_s=interval_s)
    for factor, seconds in loads:
        machine.slowness = lambda _, factor=factor: factor * rng.uniform(0.8, 1.3)
        machine.run(seconds)
        assert all(level.steps <= steps for level in machine.governor.levels)
        assert machine.governor.level in machine.governor.levels
    machine.slowness = lambda _: 1.0
    machine.run(2 * TOP)
    assert machine.governor.level is machine.governor.levels[0]
    assert set(machine.run(30)) == {machine.governor.levels[0].name}


@pytest.mark.parametrize(
    "values",
    [
        {"low": 0.95},
        {"high": 1.2},
        {"load_cap": 0.5},
        {"debt_limit": 0.5},
        {"probe_frames": 1},
        {"memory": 0.0},
        {"up_after_s": 9.0},
    ],
)
def test_options_that_cannot_work_are_refused(values):
    with pytest.raises(ValueError, match="expected"):
        GovernorOptions(**values)
