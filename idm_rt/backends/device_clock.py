"""Time by the device's own events, beside the caller's clock: what a run costs without Python and without waits."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol, Self


class DeviceEvent(Protocol):
    """A mark on a device's stream. ``torch.cuda.Event(enable_timing=True)`` is one."""

    def record(self) -> None:
        """Put the mark behind all that is on the stream."""
        ...

    def synchronize(self) -> None:
        """Wait until the device has come to it."""
        ...

    def elapsed_time(self, end_event: Self, /) -> float:
        """Milliseconds from this one to a later one; both were reached."""
        ...


class DeviceClock:
    """Durations between two events each. An engine that was asked for it brackets its work with ``start`` and ``stop``.

    Both only put an event on the stream, so they cost microseconds; they stay outside of CUDA graphs.
    """

    def __init__(self, make_event: Callable[[], DeviceEvent], covers: str) -> None:
        """Args:
        make_event: a new event on the stream in use.
        covers: what lies between the two events, in words.
        """
        self.covers = covers
        self._make_event = make_event
        self._free: list[tuple[DeviceEvent, DeviceEvent]] = []
        self._open: tuple[DeviceEvent, DeviceEvent] | None = None
        self._done: list[tuple[DeviceEvent, DeviceEvent]] = []

    def start(self) -> None:
        """The work begins behind what is on the stream now."""
        self._open = self._free.pop() if self._free else (self._make_event(), self._make_event())
        self._open[0].record()

    def stop(self) -> None:
        """The work that is measured is on the stream now."""
        assert self._open is not None, "stop without start"
        self._open[1].record()
        self._done.append(self._open)
        self._open = None

    def take_ms(self) -> float | None:
        """Milliseconds of all that ran since the last call; None when nothing did. Waits for the device."""
        pairs, self._done = self._done, []
        for _, end in pairs:
            end.synchronize()
        self._free += pairs
        return sum(start.elapsed_time(end) for start, end in pairs) if pairs else None
