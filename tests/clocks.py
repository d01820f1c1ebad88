"""A clock that tests turn, with an agenda: what is due in between happens on the way, in order and at its time.

Code that "works" for a while under such a clock calls ``advance``; the arrivals and deadlines that fall into that time
take place inside the call, on the same thread. So a run of many simulated threads is one deterministic sequence.
"""

from __future__ import annotations

import heapq
import itertools
from collections.abc import Callable


class TurnedClock:
    """Seconds that pass only when told to; calling it reads it."""

    def __init__(self, start_s: float = 1000.0) -> None:
        self.now_s = start_s
        self._order = itertools.count()
        self._agenda: list[tuple[float, int, Callable[[], None]]] = []

    def __call__(self) -> float:
        return self.now_s

    def call_at(self, when_s: float, action: Callable[[], None]) -> None:
        """Have ``action`` called when the clock passes ``when_s`` (at once in the next ``advance`` if that is over)."""
        heapq.heappush(self._agenda, (when_s, next(self._order), action))

    def next_s(self) -> float | None:
        """When the next action is due; None if nothing is planned."""
        return self._agenda[0][0] if self._agenda else None

    def agenda_length(self) -> int:
        """How many actions are planned: bounded in a test of something that must not pile up."""
        return len(self._agenda)

    def advance(self, seconds: float) -> None:
        """Let time pass. Actions may plan further ones and may advance the clock themselves."""
        self.advance_to(self.now_s + seconds)

    def advance_to(self, end_s: float) -> None:
        """Let time pass until ``end_s``, if that is still ahead."""
        while self._agenda and self._agenda[0][0] <= end_s:
            when_s, _, action = heapq.heappop(self._agenda)
            self.now_s = max(self.now_s, when_s)
            action()
        self.now_s = max(self.now_s, end_s)
