"""Delays of the frames that leave the relay, for a session's live numbers."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable

from idm_rt.timing import summarize_ms

_SAMPLES = 1000


class DelayMeter:
    """Seconds from the arrival of a frame's last packet to its encoded end. Fed on encoder threads."""

    def __init__(self, total: Callable[[float], None] | None = None) -> None:
        """``total``: told each delay too (the relay's histogram)."""
        self._delays_ms: deque[float] = deque(maxlen=_SAMPLES)
        self._total = total
        self.frames = 0

    def add(self, delay_s: float) -> None:
        """A frame left."""
        self._delays_ms.append(delay_s * 1000.0)
        self.frames += 1
        if self._total is not None:
            self._total(delay_s)

    def summary(self) -> dict[str, float]:
        """Count, mean and percentiles in ms."""
        return summarize_ms(list(self._delays_ms))
