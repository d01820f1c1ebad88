"""Stage timing with a clock that can be injected."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import numpy as np

Clock = Callable[[], float]  # monotonic seconds


class StageTimer:
    """Collects the duration of named stages; holds at most ``capacity`` samples per stage (the newest)."""

    def __init__(self, clock: Clock = time.perf_counter, capacity: int = 100_000) -> None:
        self.clock = clock
        self._capacity = capacity
        self._samples_ms: dict[str, list[float]] = {}

    @contextmanager
    def stage(self, name: str) -> Iterator[None]:
        """Time the body of the ``with`` block, whether it returns or raises."""
        start = self.clock()
        try:
            yield
        finally:
            self.add(name, (self.clock() - start) * 1000.0)

    def add(self, name: str, milliseconds: float) -> None:
        """Record one duration."""
        samples = self._samples_ms.setdefault(name, [])
        samples.append(milliseconds)
        if len(samples) > self._capacity:
            del samples[: self._capacity // 2]

    def samples_ms(self, name: str) -> list[float]:
        """The durations of one stage, oldest first; empty if it never ran."""
        return list(self._samples_ms.get(name, []))

    def last_ms(self, name: str) -> float:
        """The newest duration of one stage; 0 if it never ran."""
        samples = self._samples_ms.get(name)
        return samples[-1] if samples else 0.0

    def summary(self) -> dict[str, dict[str, float]]:
        """Per stage: count and p50, p95, p99, mean in ms, rounded to a microsecond.

        Another thread may go on timing meanwhile: each list is copied in one step before it is worked on.
        """
        return {name: summarize_ms(list(samples)) for name, samples in list(self._samples_ms.items())}

    def reset(self) -> None:
        """Forget every sample (after a warm-up)."""
        self._samples_ms.clear()


def summarize_ms(samples_ms: list[float]) -> dict[str, float]:
    """Count, mean and percentiles of durations in ms; all zero for an empty list."""
    if not samples_ms:
        return {"count": 0, "mean_ms": 0.0, "p50_ms": 0.0, "p95_ms": 0.0, "p99_ms": 0.0}
    p50, p95, p99 = np.percentile(samples_ms, [50, 95, 99])
    values = {"mean_ms": float(np.mean(samples_ms)), "p50_ms": float(p50), "p95_ms": float(p95), "p99_ms": float(p99)}
    return {"count": len(samples_ms), **{name: round(value, 3) for name, value in values.items()}}
