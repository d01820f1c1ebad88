"""Holds the frame budget: decides how much work each frame of a live stream may cost. Pure: no clock, no thread."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from idm_rt.config import STEPS


@dataclass(frozen=True, slots=True)
class Level:
    """One rung of the ladder."""

    name: str  # as shown in metrics
    steps: int  # diffusion steps of a frame that goes through the network; 0 = no frame is changed
    every: int = 1  # one frame in so many goes through the network, the others carry its correction along


BYPASS = Level("bypass", 0)


def ladder(steps: int, offered: Sequence[int] = STEPS) -> tuple[Level, ...]:
    """The levels for a configured number of steps, best first; never more steps than configured.

    Args:
        steps: what the user asks for.
        offered: what the model was trained for; ``steps`` itself need not be among them.

    Raises:
        ValueError: the model offers nothing that small.
    """
    usable = sorted((s for s in set(offered) if s <= steps), reverse=True)
    if not usable:
        raise ValueError(f"steps is {steps}, expected at least {min(offered, default='one step')} for this model")
    full = tuple(Level(f"{s} step{'s' if s > 1 else ''}", s) for s in usable)
    return (*full, Level("every other frame", usable[-1], every=2), BYPASS)


@dataclass(frozen=True, slots=True)
class Plan:
    """What to do with one frame."""

    steps: int  # diffusion steps, if it goes through the network
    carry: bool = False  # do not run the network: move the last correction along
    probe: bool = False  # at the bypass level: measure unseen, the original picture is shown


@dataclass(frozen=True, slots=True)
class GovernorOptions:
    """When to change the level. A load is work per frame divided by the frame interval."""

    high: float = 0.9  # loads above this build up debt
    low: float = 0.8  # the next better level must be expected to stay below this
    debt_limit: float = 1.5  # in frame intervals: more debt than this steps down
    load_cap: float = 2.0  # a single frame counts for no more than this, however long it took
    up_after_s: float = 2.0  # how long the margin must last before a step up
    up_after_max_s: float = 8.0  # that, after steps up that had to be taken back
    trial_s: float = 4.0  # a step up that is taken back within this time was a mistake
    probe_frames: int = 5  # frames measured unseen at the bypass level; the first is left out (set-up)
    memory: float = 0.3  # weight of the newest frame in the running means

    def __post_init__(self) -> None:
        if not 0.0 < self.low < self.high <= 1.0:
            raise ValueError(f"expected 0 < low < high <= 1, found {self.low!r}, {self.high!r}")
        if not self.load_cap > self.high or not self.debt_limit >= self.load_cap - self.high:
            raise ValueError("expected high < load_cap <= high + debt_limit, or a single frame could step down")
        if self.probe_frames < 2 or not 0.0 < self.memory <= 1.0:
            raise ValueError(
                f"expected probe_frames >= 2 and 0 < memory <= 1, found {self.probe_frames}, {self.memory}"
            )
        if not 0.0 < self.up_after_s <= self.up_after_max_s:
            raise ValueError(f"expected 0 < up_after_s <= up_after_max_s, found {self.up_after_s}")


@dataclass(slots=True)
class GovernorCounts:
    """What the governor did so far."""

    downs: int = 0
    ups: int = 0
    taken_back: int = 0  # steps up that proved a mistake
    probes: int = 0  # bursts of unseen measurements
    frames: dict[str, int] = field(default_factory=dict)  # frames planned, by level


class Governor:
    """Walks the ladder: all steps, fewer, every other frame, bypass. Down fast, up slowly, never above the user's wish.

    Down: the excess of each frame's load over ``high`` is summed (a CUSUM test: Page, "Continuous inspection
    schemes", Biometrika 1954). Sustained overload passes the limit within two frames, a slight one within ten or
    twenty, and one spike never. The next level is the best one that the measured cost says fits.

    Up: one level at a time, when that level's expected load has stayed below ``low`` for ``up_after_s``. The
    expectation is measured: the network's share of the work scales with the steps, the rest does not. A step up that
    has to be taken back doubles the wait for the next, up to ``up_after_max_s``: load at the border makes no see-saw.

    At the bypass level nothing is measured by itself, so a short burst of frames is now and then worked on unseen.
    """

    def __init__(self, steps: int = 1, options: GovernorOptions | None = None, offered: Sequence[int] = STEPS) -> None:
        self._options = options or GovernorOptions()
        self.counts = GovernorCounts()
        self.configure(steps, offered)

    def configure(self, steps: int, offered: Sequence[int] = STEPS) -> None:
        """Take over the user's steps; starts at the top, with nothing known.

        Raises:
            ValueError: see ``ladder``.
        """
        self.levels = ladder(steps, offered)
        self._index = 0
        self._base_s: float | None = None  # work on a frame without its network part
        self._step_s: float | None = None  # network's work per step, all faces of a frame
        self._debt = 0.0
        self._turn = 0  # position in the pattern of the present level
        self._wait_s = self._options.up_after_s
        self._margin_since_s: float | None = None
        self._went_up_s: float | None = None
        self._probe_left = 0
        self._probe_from_s: float | None = None

    @property
    def level(self) -> Level:
        """The present level."""
        return self.levels[self._index]

    def expected_s(self) -> float | None:
        """Work expected of the next frame; None while unknown."""
        if self._base_s is None:
            return None
        return self._base_s if self._carries() else self._base_s + (self._step_s or 0.0) * self.level.steps

    def _carries(self) -> bool:
        return self._turn % self.level.every != 0

    def probe_due(self, now_s: float) -> bool:
        """At the bypass level: whether the next frame should be measured unseen."""
        if self.level.steps:
            return False
        if self._probe_left == 0 and self._probe_from_s is not None and now_s >= self._probe_from_s:
            self._probe_left = self._options.probe_frames
            self._base_s = self._step_s = None  # what was true under load says nothing now
            self.counts.probes += 1
        return self._probe_left > 0

    def plan(self) -> Plan:
        """What to do with the next frame; call it once per frame that is worked on."""
        level = self.level
        self.counts.frames[level.name] = self.counts.frames.get(level.name, 0) + 1
        if not level.steps:
            return Plan(self.levels[self._index - 1].steps, probe=True)
        carry = self._carries()
        self._turn += 1
        return Plan(level.steps, carry)

    def observe(self, plan: Plan, work_s: float, network_s: float, interval_s: float, now_s: float) -> Level:
        """Learn what a planned frame cost; returns the level from now on.

        Args:
            plan: the frame's plan.
            work_s: time spent on the whole frame, seconds.
            network_s: part of it in the restorer's network; 0 if no face needed it.
            interval_s: distance of the stream's frames at present, seconds.
            now_s: monotonic seconds; must not run back.
        """
        if plan.probe != (not self.level.steps):
            return self.level  # planned before the level changed: says nothing about the present one
        if plan.probe:
            self._observe_probe(plan, work_s, network_s, interval_s, now_s)
            return self.level
        if self._went_up_s is not None and now_s - self._went_up_s > self._options.trial_s:
            self._went_up_s, self._wait_s = None, self._options.up_after_s  # the step up has proved right
        self._learn(plan, work_s, network_s)
        load = min(work_s / interval_s, self._options.load_cap)
        self._debt = max(0.0, self._debt + load - self._options.high)
        if self._debt > self._options.debt_limit:
            self._step_down(interval_s, now_s)
        else:
            self._consider_up(interval_s, now_s)
        return self.level

    def _learn(self, plan: Plan, work_s: float, network_s: float) -> None:
        network_s = min(max(network_s, 0.0), work_s)
        self._base_s = self._mix(self._base_s, work_s - network_s)
        if network_s > 0.0:  # a frame without a face does not make the network cheap
            self._step_s = self._mix(self._step_s, network_s / plan.steps)

    def _mix(self, mean: float | None, value: float) -> float:
        return value if mean is None else mean + self._options.memory * (value - mean)

    def _expected_load(self, index: int, interval_s: float) -> float:
        level = self.levels[index]
        work_s = (self._base_s or 0.0) + (self._step_s or 0.0) * level.steps / level.every
        return work_s / interval_s

    def _step_down(self, interval_s: float, now_s: float) -> None:
        taken_back = self._went_up_s is not None and now_s - self._went_up_s <= self._options.trial_s
        self.counts.taken_back += taken_back
        self._wait_s = min(self._wait_s * 2.0, self._options.up_after_max_s) if taken_back else self._options.up_after_s
        bottom = len(self.levels) - 1
        fitting = (
            i for i in range(self._index + 1, bottom) if self._expected_load(i, interval_s) <= self._options.high
        )
        self._enter(next(fitting, bottom), now_s)
        self.counts.downs += 1
        self._went_up_s = None

    def _consider_up(self, interval_s: float, now_s: float) -> None:
        if self._index == 0 or self._expected_load(self._index - 1, interval_s) >= self._options.low:
            self._margin_since_s = None
            return
        if self._margin_since_s is None:
            self._margin_since_s = now_s
        if now_s - self._margin_since_s >= self._wait_s:
            self._step_up(now_s)

    def _step_up(self, now_s: float) -> None:
        self._enter(self._index - 1, now_s)
        self.counts.ups += 1
        self._went_up_s = now_s

    def _observe_probe(self, plan: Plan, work_s: float, network_s: float, interval_s: float, now_s: float) -> None:
        if self._probe_left < self._options.probe_frames:
            self._learn(plan, work_s, network_s)
        self._probe_left = max(0, self._probe_left - 1)
        if self._probe_left:
            return
        if self._expected_load(self._index - 1, interval_s) < self._options.low:
            self._step_up(now_s)
            return
        self._wait_s = min(self._wait_s * 2.0, self._options.up_after_max_s)
        self._probe_from_s = now_s + self._wait_s

    def _enter(self, index: int, now_s: float) -> None:
        self._index = index
        self._debt, self._turn, self._margin_since_s = 0.0, 0, None
        self._probe_left = 0
        self._probe_from_s = now_s + self._wait_s
