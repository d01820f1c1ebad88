"""How far apart the frames of a live stream are, from the times at which they come."""

from __future__ import annotations

from collections import deque

USUAL_S = 1.0 / 30.0
_SHORTEST_S = 1.0 / 240.0
_FEW = 5  # distances; of fewer a burst may be the whole story
_PAUSE_S = 0.5  # a longer distance is a pause of the source, not a frame rate


class FrameInterval:
    """Mean distance of the last frames, in seconds.

    A mean and no median, because networks deliver in bursts: two frames at once after a double wait are still two
    frames. After a change of the frame rate one window passes until it has followed (half a second at 30 a second).
    """

    def __init__(self, window: int = 15) -> None:
        self._distances: deque[float] = deque(maxlen=window)
        self._last_s: float | None = None

    @property
    def seconds(self) -> float:
        """The distance; 1/30 s before two frames have come, and no less until a few more have."""
        if not self._distances:
            return USUAL_S
        mean_s = sum(self._distances) / len(self._distances)
        return max(_SHORTEST_S if len(self._distances) >= _FEW else USUAL_S, mean_s)

    def add(self, time_s: float) -> None:
        """A frame came at ``time_s`` (monotonic seconds)."""
        if self._last_s is not None and 0.0 <= time_s - self._last_s <= _PAUSE_S:
            self._distances.append(time_s - self._last_s)
        self._last_s = time_s
