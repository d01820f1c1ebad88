"""A live stream in simulated time: a scripted enhancer, and a run of source, engine and watch on one thread."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from fractions import Fraction

import numpy as np
from clocks import TurnedClock

from idm_rt.delivery import Delivery
from idm_rt.engine_thread import WorkerOptions, serve
from idm_rt.enhancer import EnhancedFrame
from idm_rt.governor import Governor
from idm_rt.live_records import LiveControls, LiveFrame, LiveStats
from idm_rt.timing import StageTimer
from idm_rt.types import Frame

CAMERA = np.zeros((4, 4, 3), np.uint8)
RESTORED = np.full((4, 4, 3), 255, np.uint8)
FPS30 = 1.0 / 30.0
VIDEO_CLOCK = Fraction(1, 90_000)


def camera_frame(index: int) -> Frame:
    return Frame(CAMERA, pts=index * 3000, time_base=VIDEO_CLOCK)


@dataclass
class Call:
    """One call of ``ScriptedEnhancer.process_frame``."""

    pts: int | None
    timestamp_ms: float
    steps: int | None
    strength: float | None
    carry: bool
    began_s: float


class ScriptedEnhancer:
    """Whitens the frame; its work advances the clock by what the script says."""

    def __init__(
        self,
        clock: TurnedClock,
        base_s: float = 0.010,
        step_s: float = 0.008,
        slowness: Callable[[float], float] = lambda now_s: 1.0,
        offered_steps: tuple[int, ...] = (1, 2, 4),
    ) -> None:
        self.base_s, self.step_s, self.slowness, self.offered_steps = base_s, step_s, slowness, offered_steps
        self.timer = StageTimer(clock)
        self.last = EnhancedFrame()
        self.calls: list[Call] = []
        self.fault: str | None = None  # report this as Enhancer does: the original and a cause
        self.error: Exception | None = None  # raise this, which Enhancer never does
        self.closed = 0
        self._clock = clock

    def process_frame(self, frame, timestamp_ms, *, steps=None, strength=None, carry=False) -> Frame:
        self.calls.append(Call(frame.pts, timestamp_ms, steps, strength, carry, self._clock()))
        if self.error is not None:
            raise self.error
        factor = self.slowness(self._clock())
        self._clock.advance(self.base_s * factor)
        if not carry:
            with self.timer.stage("restore"):
                self._clock.advance(self.step_s * (steps or 1) * factor)
        self.last = EnhancedFrame(restored=0 if carry else 1, bypassed=self.fault)
        return frame if self.fault else replace(frame, image=RESTORED)

    def close(self) -> None:
        self.closed += 1


class LiveSimulation:
    """A source with a frame rate, an enhancer and the watch, in simulated time; keeps what came out and when."""

    def __init__(self, *, steps: int = 1, interval_s: float = FPS30, opened: bool = True, **script) -> None:
        self.clock = TurnedClock()
        self.enhancer = ScriptedEnhancer(self.clock, **script)
        options = WorkerOptions()
        governor = Governor(steps, options.governor)
        self.delivery = Delivery(LiveControls(steps=steps), governor, self.clock, options.deadline_frames)
        if opened:
            self.delivery.engine_opened(self.enhancer.offered_steps)
        self.interval_s = interval_s
        self.jitter: Callable[[], float] = lambda: 0.0  # seconds by which an arrival comes late
        self.out: list[tuple[float, LiveFrame]] = []
        self.largest_slots = 0
        self._watch_s: float | None = None  # when the watch looks again
        self._due_s = self.clock()
        self.clock.call_at(self._due_s, self._arrive)

    def run(self, seconds: float) -> list[tuple[float, LiveFrame]]:
        """Let the stream run; returns what came out meanwhile as (time, frame)."""
        first, end_s = len(self.out), self.clock() + seconds
        while self.clock() < end_s:
            job = self.delivery.inbound.take()
            if job is None:
                next_s = self.clock.next_s()
                self.clock.advance_to(end_s if next_s is None else min(end_s, next_s))
                continue
            serve(self.delivery, self.enhancer, job, self.clock)
            self._drain()
        return self.out[first:]

    def stats(self) -> LiveStats:
        return self.delivery.stats("running", self.enhancer.timer, 1, 0)

    def _arrive(self) -> None:
        self.delivery.submit(Frame(CAMERA, round(self._due_s * 90_000), VIDEO_CLOCK))
        self._drain()
        self._due_s += self.interval_s
        self.clock.call_at(self._due_s + self.jitter(), self._arrive)
        self._watch()

    def _watch(self) -> None:
        due_in_s = self.delivery.watch()
        self._drain()
        if due_in_s is None:
            return
        when_s = self.clock() + due_in_s
        if self._watch_s is None or when_s < self._watch_s:  # one alarm is set at a time, as on the real watch thread
            self._watch_s = when_s
            self.clock.call_at(when_s, lambda: self._wake(when_s))

    def _wake(self, when_s: float) -> None:
        if when_s == self._watch_s:
            self._watch_s = None
        self._watch()

    def _drain(self) -> None:
        self.largest_slots = max(self.largest_slots, len(self.delivery.inbound), len(self.delivery.outbound))
        live = self.delivery.outbound.take()
        if live is not None:
            self.out.append((self.clock(), live))
