"""An audio track that waits for the video it belongs to."""

from __future__ import annotations

import asyncio
import logging
import time
from collections import deque
from collections.abc import Callable

from aiortc.mediastreams import MediaStreamError, MediaStreamTrack
from av.audio.frame import AudioFrame

from idm_rt.timing import Clock
from idm_rt.webrtc.arrivals import ArrivalOf, stamp

log = logging.getLogger(__name__)

# aiortc's own buffers release audio this much later than video: four audio frames and the start of a fifth (80 ms)
# against one video frame interval (33 ms at 30 per second). Where arrivals are measured nothing need be assumed.
USUAL_LEAD_S = 0.047
_MAX_DELAY_S = 1.0  # a larger delay is a fault in the video; the talk goes on
_SLEW = 0.02  # seconds of delay gained or lost per second: the viewer's player stretches that much unheard
_MAX_FRAMES = 100  # 2 s


class DelayedAudioTrack(MediaStreamTrack):
    """``track``, each frame held until the picture of its time is emitted; pts and time_base are kept.

    A viewer plays sound and picture together that were *sent* together, because that is what sender reports state. So
    whoever holds the video must hold the audio as long. The delay follows ``video_delay_s`` slowly, without jumps.
    """

    kind = "audio"

    def __init__(
        self,
        track: MediaStreamTrack,
        video_delay_s: Callable[[], float],
        arrival_of: ArrivalOf | None = None,
        *,
        lead_s: float = USUAL_LEAD_S,
        clock: Clock = time.monotonic,
    ) -> None:
        """Nothing is read before the first ``recv``.

        Args:
            track: an audio track of decoded frames.
            video_delay_s: present delay of the video in seconds, such as ``EnhancedVideoTrack.delay_s``.
            arrival_of: when a frame's packets came in (see ``use_marker_bit``); the delay then counts from there.
            lead_s: without ``arrival_of``: how much later than video audio comes here anyhow, in seconds.
            clock: monotonic seconds.

        Raises:
            ValueError: not an audio track.
        """
        super().__init__()
        if track.kind != "audio":
            raise ValueError(f"expected an audio track, found a track of kind {track.kind!r}")
        self._source, self._video_delay_s, self._arrival_of = track, video_delay_s, arrival_of
        self._lead_s = 0.0 if arrival_of is not None else lead_s
        self._clock = clock
        self._frames: deque[tuple[float, AudioFrame]] = deque()  # (arrival, frame)
        self._changed = asyncio.Event()
        self._ended = False
        self._pump: asyncio.Task[None] | None = None
        self._delay_s: float | None = None
        self._asked_s = 0.0
        self.dropped = 0  # frames that nobody took for two seconds

    @property
    def delay_s(self) -> float:
        """How long frames are held at present, counted from their arrival."""
        return self._delay_s or 0.0

    async def recv(self) -> AudioFrame:
        """The next frame, when it is due.

        Raises:
            MediaStreamError: the track or its source has ended.
        """
        if self.readyState != "live":
            raise MediaStreamError
        if self._pump is None:
            self._pump = asyncio.ensure_future(self._read_source())
        while not self._frames:
            if self._ended:
                self.stop()
                raise MediaStreamError
            self._changed.clear()
            await self._changed.wait()
        arrived_s, frame = self._frames[0]
        wait_s = arrived_s + self._next_delay_s() - self._clock()
        if wait_s > 0.0:
            await asyncio.sleep(wait_s)
        if self._frames and self._frames[0][1] is frame:  # else it was given up meanwhile
            self._frames.popleft()
        return frame

    def stop(self) -> None:
        """End this track and its source."""
        super().stop()
        if self._pump is not None:
            self._pump.cancel()
        self._frames.clear()
        self._source.stop()

    def _next_delay_s(self) -> float:
        now_s = self._clock()
        wanted_s = min(_MAX_DELAY_S, max(0.0, self._video_delay_s() - self._lead_s))
        if self._delay_s is None:
            self._delay_s = wanted_s
        else:
            self._delay_s = approach(self._delay_s, wanted_s, _SLEW * max(0.0, now_s - self._asked_s))
        self._asked_s = now_s
        return self._delay_s

    async def _read_source(self) -> None:
        try:
            while True:
                frame, now_s = await self._source.recv(), self._clock()
                if not isinstance(frame, AudioFrame):
                    raise TypeError(f"expected decoded audio frames, found {type(frame).__name__}")
                self._frames.append((stamp(frame, now_s, self._arrival_of).arrived_s, frame))
                if len(self._frames) > _MAX_FRAMES:
                    self._frames.popleft()
                    self.dropped += 1
                self._changed.set()
        except MediaStreamError:
            log.debug("the source has ended")
        except Exception:  # a broken source ends this track as a closed one does
            log.exception("the source failed")
        finally:
            self._ended = True
            self._changed.set()


def approach(value: float, target: float, step: float) -> float:
    """``value``, moved towards ``target`` by no more than ``step``."""
    return target if abs(target - value) <= step else value + (step if target > value else -step)
