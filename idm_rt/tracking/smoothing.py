"""One-Euro filter for landmarks: still when the face is still, close behind when it moves.

Casiez, Roussel, Vogel, "1 Euro Filter: a simple speed-based low-pass filter for noisy input in interactive systems",
CHI 2012. Two changes: speed is measured in face sizes per second, so that a 60 px and a 600 px face behave alike, and
x and y of a point share one cutoff, so that the result does not depend on how the picture is turned.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from idm_rt.types import FloatArray


@dataclass(frozen=True, slots=True)
class OneEuroOptions:
    """Cutoff frequency = min_cutoff_hz + beta * speed."""

    min_cutoff_hz: float = 1.0  # of a still point: lower = less jitter, more drift after a slow move
    beta: float = 30.0  # Hz per (face size / s): higher = less lag
    speed_cutoff_hz: float = 3.0  # low-pass of the speed itself


class OneEuroFilter:
    """Filters (K, 2) points, one cutoff per point."""

    def __init__(self, options: OneEuroOptions | None = None) -> None:
        self._options = options or OneEuroOptions()
        self.reset()

    def reset(self) -> None:
        """The next points are returned as they are."""
        self._points: FloatArray | None = None
        self._velocity: FloatArray | None = None  # (K, 2) sizes / s, filtered

    def __call__(self, points: FloatArray, size: float, dt_s: float) -> FloatArray:
        """The filtered points.

        Args:
            points: (K, 2), any unit.
            size: size of the face in the same unit, > 0.
            dt_s: seconds since the last call, > 0; not looked at in the first.
        """
        if self._points is None or self._velocity is None:
            self._points, self._velocity = points.astype(np.float64), np.zeros(points.shape)
            return self._points
        if not (dt_s > 0 and size > 0):
            raise ValueError(f"expected dt_s > 0 and size > 0, found {dt_s} and {size}")
        raw_velocity = (points - self._points) / (size * dt_s)
        weight = smoothing_factor(self._options.speed_cutoff_hz, dt_s)
        self._velocity = self._velocity + weight * (raw_velocity - self._velocity)
        speed = np.linalg.norm(self._velocity, axis=1, keepdims=True)  # (K, 1)
        alpha = smoothing_factor(self._options.min_cutoff_hz + self._options.beta * speed, dt_s)
        self._points = self._points + alpha * (points - self._points)
        return self._points


def smoothing_factor(cutoff_hz: float | FloatArray, dt_s: float) -> float | FloatArray:
    """Weight of the new sample in a first-order low-pass: 1 / (1 + tau / dt), tau = 1 / (2 pi cutoff)."""
    r = 2.0 * math.pi * dt_s * cutoff_hz
    return r / (r + 1.0)
