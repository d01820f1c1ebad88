"""When the pictures of a constant rate are due. Pure: no clock, no thread."""

from __future__ import annotations

import math

_SLACK = 1e-6  # of a tick: rounding must not make a tick that is due look early


class Metronome:
    """Ticks 0, 1, 2, ... at ``start_s + tick / fps``. A late caller goes on with the newest tick that is due.

    The times are computed from the start, so that rounding and lateness never add up.
    """

    def __init__(self, fps: float, start_s: float) -> None:
        self._fps, self._start_s = fps, start_s
        self.tick = 0  # the next one to serve
        self.missed = 0  # ticks that passed unserved

    @property
    def due_s(self) -> float:
        """When the next tick is due."""
        return self._start_s + self.tick / self._fps

    def serve(self, now_s: float) -> tuple[int, int]:
        """Take what is due.

        Returns:
            (first tick, how many): one when in time, more after a delay (all but one are counted as missed), zero
            before the time.
        """
        newest = math.floor((now_s - self._start_s) * self._fps + _SLACK)
        if newest < self.tick:
            return self.tick, 0
        first, count = self.tick, newest - self.tick + 1
        self.tick, self.missed = newest + 1, self.missed + count - 1
        return first, count
