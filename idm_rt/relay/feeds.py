"""What a room shows: a feed outlives its publishers, and each viewer has a track of its own."""

from __future__ import annotations

import asyncio
import logging
import time
from collections import deque
from fractions import Fraction

from aiortc.mediastreams import MediaStreamError, MediaStreamTrack

from idm_rt.timing import Clock
from idm_rt.webrtc.arrivals import MediaFrame

log = logging.getLogger(__name__)

_QUEUED = {"video": 1, "audio": 25}  # frames a viewer may be behind: the newest picture, half a second of sound


class Feed:
    """One kind of media of a room.

    A publisher's track is attached; when it ends the viewers' tracks wait for the next one. Its pts are shifted so
    that they go on from those of the publisher before, by the time that has passed.
    """

    def __init__(self, kind: str, clock: Clock = time.monotonic) -> None:
        self.kind, self._clock = kind, clock
        self.viewers: set[FeedTrack] = set()
        self.frames = 0
        self.last_frame_s: float | None = None
        self._source: MediaStreamTrack | None = None
        self._pump: asyncio.Task[None] | None = None
        self._shown_until_s: float | None = None  # pts of the newest frame, in seconds

    @property
    def attached(self) -> bool:
        """Whether a publisher's track is being read."""
        return self._pump is not None and not self._pump.done()

    def attach(self, track: MediaStreamTrack) -> None:
        """Show this track from now on, in place of the one before. The feed reads it to its end."""
        self.detach()
        self._source = track
        self._pump = asyncio.ensure_future(self._read(track))

    def detach(self) -> None:
        """Stop the present source; viewers wait for the next one."""
        if self._pump is not None:
            self._pump.cancel()
        if self._source is not None:
            self._source.stop()
        self._source = self._pump = None

    def close(self) -> None:
        """End the feed and every viewer's track."""
        self.detach()
        for viewer in list(self.viewers):
            viewer.stop()

    def subscribe(self) -> FeedTrack:
        """A track for one more viewer."""
        viewer = FeedTrack(self)
        self.viewers.add(viewer)
        return viewer

    async def _read(self, track: MediaStreamTrack) -> None:
        shift_s: float | None = None
        try:
            while True:
                frame = await track.recv()
                if not isinstance(frame, MediaFrame) or frame.pts is None or not frame.time_base:
                    continue
                if shift_s is None:
                    shift_s = self._shift_s(frame)
                self._show(frame, shift_s)
        except MediaStreamError:
            log.debug("a publisher's %s track has ended", self.kind)

    def _shift_s(self, first: MediaFrame) -> float:
        """What to add to a new publisher's times, in seconds; 0 for the first one."""
        if self._shown_until_s is None or self.last_frame_s is None:
            return 0.0
        pause_s = max(1.0 / 50.0, self._clock() - self.last_frame_s)
        return self._shown_until_s + pause_s - _time_s(first)

    def _show(self, frame: MediaFrame, shift_s: float) -> None:
        if shift_s:
            frame.pts = (frame.pts or 0) + round(shift_s / float(_time_base(frame)))
        self._shown_until_s, self.last_frame_s = _time_s(frame), self._clock()
        self.frames += 1
        for viewer in self.viewers:
            viewer.put(frame)


class FeedTrack(MediaStreamTrack):
    """A viewer's track. It lives until the viewer goes or the feed closes; without a publisher it waits."""

    def __init__(self, feed: Feed) -> None:
        super().__init__()
        self.kind = feed.kind
        self._feed = feed
        self._frames: deque[MediaFrame] = deque(maxlen=_QUEUED[feed.kind])
        self._changed = asyncio.Event()
        self._reading = False

    def put(self, frame: MediaFrame) -> None:
        """A new frame; if the viewer is too slow an older one is dropped. Nothing is kept before the first ``recv``."""
        if self._reading:
            self._frames.append(frame)
            self._changed.set()

    async def recv(self) -> MediaFrame:
        """The next frame.

        Raises:
            MediaStreamError: the track has ended.
        """
        self._reading = True
        while self.readyState == "live":
            if self._frames:
                return self._frames.popleft()
            self._changed.clear()
            await self._changed.wait()
        raise MediaStreamError

    def stop(self) -> None:
        """End this track alone."""
        super().stop()
        self._feed.viewers.discard(self)
        self._frames.clear()
        self._changed.set()


def _time_base(frame: MediaFrame) -> Fraction:
    known = frame.time_base  # PyAV 19 has a rational number of its own
    return Fraction(known.numerator, known.denominator) if known else Fraction(1)


def _time_s(frame: MediaFrame) -> float:
    return (frame.pts or 0) * float(_time_base(frame))
