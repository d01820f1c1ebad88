"""When the packets of a frame came in, so that a delay can be told from the network's edge and not from the decoder."""

from __future__ import annotations

import time
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass

from aiortc.mediastreams import MediaStreamError, MediaStreamTrack
from av.audio.frame import AudioFrame
from av.video.frame import VideoFrame

from idm_rt.timing import Clock

_KEPT = 256  # frames on their way from the network to the consumer; a second of audio is 50
_WRAP = 1 << 32  # of RTP timestamps

MediaFrame = VideoFrame | AudioFrame  # decoded
ArrivalOf = Callable[[int | None], float | None]  # pts of a decoded frame -> monotonic seconds, None if not known


@dataclass(slots=True)
class FrameStamp:
    """Where a frame has been, in monotonic seconds. Travels with the frame as its ``opaque``."""

    arrived_s: float  # its last packet came in; or the decoded frame, where nobody watched the packets
    on_left: Callable[[float], None] | None = None  # told the seconds since then, once the frame is encoded again


class Arrivals:
    """Arrival times of the newest frames of one RTP stream, by the pts that aiortc gives the decoded frame.

    aiortc counts pts from the first frame it releases; so does this class. Bounded.
    """

    def __init__(self, clock: Clock = time.monotonic) -> None:
        self._clock = clock
        self._origin: int | None = None
        self._times: OrderedDict[int, float] = OrderedDict()  # RTP timestamp -> arrival of its last packet

    def packet(self, rtp_timestamp: int) -> None:
        """A packet came in."""
        self._times[rtp_timestamp] = self._clock()
        while len(self._times) > _KEPT:
            self._times.popitem(last=False)

    def released(self, rtp_timestamp: int) -> None:
        """A frame went to the decoder; the first one has pts 0."""
        if self._origin is None:
            self._origin = rtp_timestamp

    def of(self, pts: int | None) -> float | None:
        """Arrival of the last packet of a decoded frame; None if that is not known (any more)."""
        if pts is None or self._origin is None:
            return None
        return self._times.get((self._origin + pts) % _WRAP)


def stamp_of(frame: MediaFrame) -> FrameStamp | None:
    """The frame's stamp, if it has one."""
    return frame.opaque if isinstance(frame.opaque, FrameStamp) else None


def stamp(
    frame: MediaFrame,
    now_s: float,
    arrival_of: ArrivalOf | None = None,
    on_left: Callable[[float], None] | None = None,
) -> FrameStamp:
    """Stamp a frame, unless it was stamped before; returns its stamp."""
    known = stamp_of(frame)
    if known is None:
        arrived_s = arrival_of(frame.pts) if arrival_of is not None else None
        known = frame.opaque = FrameStamp(now_s if arrived_s is None else arrived_s, on_left)
    return known


def frame_left(frame: VideoFrame) -> None:
    """The frame was encoded and is about to be sent: tell whoever measures (see ``apply_codec_options``)."""
    known = stamp_of(frame)
    if known is not None and known.on_left is not None:
        known.on_left(time.monotonic() - known.arrived_s)


class StampedTrack(MediaStreamTrack):
    """The same track, each frame stamped with the arrival of its packets."""

    def __init__(
        self,
        track: MediaStreamTrack,
        arrival_of: ArrivalOf | None,
        on_left: Callable[[float], None] | None = None,
        clock: Clock = time.monotonic,
    ) -> None:
        """``on_left``: told each frame's delay in seconds when it has been encoded again; on an encoder's thread."""
        super().__init__()
        self.kind = track.kind
        self._source, self._arrival_of, self._on_left, self._clock = track, arrival_of, on_left, clock

    async def recv(self) -> MediaFrame:
        """The next frame.

        Raises:
            MediaStreamError: the track or its source has ended.
        """
        if self.readyState != "live":
            raise MediaStreamError
        try:
            frame = await self._source.recv()
        except MediaStreamError:
            self.stop()
            raise
        if not isinstance(frame, MediaFrame):
            raise TypeError(f"expected decoded frames, found {type(frame).__name__}")
        stamp(frame, self._clock(), self._arrival_of, self._on_left)
        return frame

    def stop(self) -> None:
        """End this track and its source."""
        super().stop()
        self._source.stop()
