"""Whether this machine can carry one more session, judged by what the present ones were measured to cost."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass

from idm_rt.timing import Clock

# Cores a session takes, relative to each other: a publisher is decoded and restored, a viewer encoded for, a caller
# both. Only the ratios matter once there is a measurement.
WEIGHTS = {"publish": 0.8, "view": 0.2, "call": 1.0}
_WINDOW_S = 5.0  # a measurement spans at least so long
_CHEAPEST, _DEAREST = 0.2, 3.0  # bounds of the measured factor: start-up and idle minutes are not typical
RETRY_AFTER_S = 10


@dataclass(slots=True)
class _Mark:
    clock_s: float
    cpu_s: float
    weight: float


class Admission:
    """Budget of processor time. The first session is always admitted: the governor makes it fit."""

    def __init__(
        self, cores: int, share: float, clock: Clock = time.monotonic, cpu_clock: Clock = time.process_time
    ) -> None:
        """``cpu_clock``: seconds of processor time that this process has used, on all its threads."""
        self._budget, self._clock, self._cpu_clock = cores * share, clock, cpu_clock
        self.factor = 1.0  # measured cores per unit of weight
        self.used_cores = 0.0  # in the last window
        self._mark = _Mark(clock(), cpu_clock(), 0.0)

    def measure(self, counts: Mapping[str, int]) -> None:
        """Note how much was used; call it now and then, and before the sessions change."""
        now = _Mark(self._clock(), self._cpu_clock(), _weight(counts))
        span_s = now.clock_s - self._mark.clock_s
        if now.weight != self._mark.weight:
            self._mark = now
        elif span_s >= _WINDOW_S:
            self.used_cores = (now.cpu_s - self._mark.cpu_s) / span_s
            if now.weight > 0.0:
                self.factor = min(_DEAREST, max(_CHEAPEST, self.used_cores / now.weight))
            self._mark = now

    def admits(self, role: str, counts: Mapping[str, int]) -> bool:
        """Whether a session of this role fits beside ``counts`` (sessions by role)."""
        present = _weight(counts)
        return present == 0.0 or self.factor * (present + WEIGHTS[role]) <= self._budget


def _weight(counts: Mapping[str, int]) -> float:
    return sum(WEIGHTS[role] * count for role, count in counts.items())
