"""Jitter buffers for aiortc's receivers that release a video frame with its last packet.

aiortc (1.16) holds a frame until the first packet of the next one is there: a whole frame interval per hop. RTP marks
a video frame's last packet (the marker bit: RFC 7741, 4.1 for VP8; RFC 6184, 5.1 for H.264), so that there is nothing
to wait for. Under loss it also waits until 512 packets have come, several seconds; here the wait is bounded in time.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from aiortc import RTCRtpReceiver
from aiortc.jitterbuffer import JitterBuffer, JitterFrame
from aiortc.rtp import RtpPacket
from aiortc.utils import uint16_add, uint16_gt

from idm_rt.errors import ConfigError
from idm_rt.timing import Clock
from idm_rt.webrtc.arrivals import Arrivals

log = logging.getLogger(__name__)

_VIDEO_CAPACITY, _AUDIO_CAPACITY = 512, 16  # packets; aiortc's own numbers
# Private names of aiortc's receiver; tests/webrtc/test_jitter.py fails when a new version has others.
_BUFFER = "_RTCRtpReceiver__jitter_buffer"
_DECODER_QUEUE = "_RTCRtpReceiver__decoder_queue"
_CODECS = "_RTCRtpReceiver__codecs"
_MAPPER = "_RTCRtpReceiver__timestamp_mapper"
_KIND = "_RTCRtpReceiver__kind"


@dataclass(frozen=True, slots=True)
class JitterOptions:
    """How long received packets are held."""

    marker_bit: bool = True  # release a video frame with its marked packet; False = as aiortc does
    max_wait_s: float = 0.3  # for a lost packet; then the frame is given up and a key frame asked for
    audio_prefetch: int = 2  # audio frames held before the first is released; aiortc holds 4 (80 ms)

    def __post_init__(self) -> None:
        if not 0.0 < self.max_wait_s <= 5.0:
            raise ConfigError(f"max_wait_s is {self.max_wait_s!r}; choose seconds above 0, up to 5")
        if not 0 <= self.audio_prefetch <= 8:
            raise ConfigError(f"audio_prefetch is {self.audio_prefetch!r}; choose 0 to 8 frames")


class WatchedJitterBuffer(JitterBuffer):
    """aiortc's buffer, with the arrival times of what passes."""

    def __init__(self, capacity: int, prefetch: int = 0, is_video: bool = False, clock: Clock = time.monotonic) -> None:
        super().__init__(capacity, prefetch, is_video)
        self.arrivals = Arrivals(clock)

    def add(self, packet: RtpPacket) -> tuple[bool, JitterFrame | None]:
        """Take a packet; returns whether a key frame is needed, and a frame that is complete."""
        self.arrivals.packet(packet.timestamp)
        key_frame_needed, frame = super().add(packet)
        if frame is not None:
            self.arrivals.released(frame.timestamp)
        return key_frame_needed, frame


class MarkerJitterBuffer(WatchedJitterBuffer):
    """Releases a video frame with its marked packet, several if a late packet completes several.

    A sender that marks packets in the middle of a frame is found out by the packet that follows; from then on frames
    are released when the next one begins, as aiortc does.
    """

    def __init__(
        self,
        options: JitterOptions,
        hand_over: Callable[[RtpPacket, JitterFrame], None] | None = None,
        clock: Clock = time.monotonic,
    ) -> None:
        """``hand_over`` takes all frames but the last where a packet completes several; None: they come with later
        packets, one with each, which is what aiortc does."""
        super().__init__(_VIDEO_CAPACITY, is_video=True, clock=clock)
        self._max_wait_s, self._hand_over, self._now = options.max_wait_s, hand_over, clock
        self._trusts_marker = True
        self._last_released: int | None = None  # RTP timestamp
        self._newest: int | None = None  # sequence number
        self._resyncing = False  # the packet at the head may lie in the middle of a frame whose start is lost
        self._came_s: dict[int, float] = {}  # sequence number -> arrival, of the packets held
        self.given_up = 0  # gaps whose packets never came

    def add(self, packet: RtpPacket) -> tuple[bool, JitterFrame | None]:
        """See ``WatchedJitterBuffer.add``."""
        self._came_s[packet.sequence_number] = self._now()
        if self._newest is None or uint16_gt(packet.sequence_number, self._newest):
            self._newest = packet.sequence_number
        key_frame_needed, frame = super().add(packet)
        while frame is None and self._gap_age_s() > self._max_wait_s:
            self._skip_gap()
            key_frame_needed, frame = True, self._remove_frame(packet.sequence_number)
        while frame is not None and self._hand_over is not None:
            self.arrivals.released(frame.timestamp)
            following = self._remove_frame(packet.sequence_number)
            if following is None:
                break
            self._hand_over(packet, frame)
            frame = following
        return key_frame_needed, frame

    def remove(self, count: int) -> None:
        """Drop packets at the head."""
        for _ in range(count):
            self._came_s.pop(self._origin or 0, None)
            super().remove(1)
        if len(self._came_s) > 2 * self.capacity:  # packets that aiortc refused or overwrote
            self._came_s = {key: came for key, came in self._came_s.items() if self._at(key) is not None}

    def _remove_frame(self, sequence_number: int) -> JitterFrame | None:
        """Take out the frame at the head if it is complete (called by aiortc's ``add``)."""
        self._resync()
        self._drop_padding()
        packets: list[RtpPacket] = []
        for packet in self._head():
            if packets and packet.timestamp != packets[0].timestamp:
                return self._release(packets)
            packets.append(packet)
            if packet.marker and self._trusts_marker:
                return self._release(packets)
        return None

    def _at(self, sequence_number: int) -> RtpPacket | None:
        packet = self._packets[sequence_number % self.capacity]
        return packet if packet is not None and packet.sequence_number == sequence_number else None

    def _head(self) -> Iterator[RtpPacket]:
        """The packets from the head on, up to the first gap."""
        sequence_number = self._origin
        while sequence_number is not None and (packet := self._at(sequence_number)) is not None:
            yield packet
            sequence_number = uint16_add(sequence_number, 1)

    def _resync(self) -> None:
        """After a gap: drop what is left of the frame that it tore."""
        before: RtpPacket | None = None
        while self._resyncing and (packet := next(self._head(), None)) is not None:
            if before is not None and packet.timestamp != before.timestamp:
                self._resyncing = False
                return
            self._resyncing = not (packet.marker and self._trusts_marker)
            before = packet
            self.remove(1)

    def _drop_padding(self) -> None:
        """Senders that probe for bandwidth send packets without payload between the frames."""
        while (packet := next(self._head(), None)) is not None and not packet._data:  # type: ignore[attr-defined]
            self.remove(1)
        if packet is not None and packet.timestamp == self._last_released and self._trusts_marker:
            log.info("the sender marks packets inside a frame: frames are held until the next one begins")
            self._trusts_marker = False

    def _release(self, packets: list[RtpPacket]) -> JitterFrame:
        self.remove(len(packets))
        self._last_released = packets[0].timestamp
        data = b"".join(packet._data for packet in packets)  # type: ignore[attr-defined]
        return JitterFrame(data, packets[0].timestamp)

    def _gap_age_s(self) -> float:
        """How long the packet after the first gap has been here; 0 if there is no gap."""
        behind = self._behind_gap()
        return 0.0 if behind is None else self._now() - self._came_s.get(behind, self._now())

    def _behind_gap(self) -> int | None:
        """The first sequence number after the first gap; None if there is no gap."""
        if self._origin is None or self._newest is None:
            return None
        sequence_number = uint16_add(self._origin, sum(1 for _ in self._head()))
        while uint16_gt(self._newest, sequence_number):
            sequence_number = uint16_add(sequence_number, 1)
            if self._at(sequence_number) is not None:
                return sequence_number
        return None

    def _skip_gap(self) -> None:
        behind = self._behind_gap()
        if behind is not None:
            self.remove(uint16_add(behind, -(self._origin or 0)))
            self.given_up += 1
            self._resyncing = True


def use_marker_bit(receiver: RTCRtpReceiver, options: JitterOptions | None = None) -> Arrivals:
    """Give an aiortc receiver our jitter buffer, before its connection is made.

    Args:
        receiver: audio or video; ``[t.receiver for t in pc.getTransceivers()]`` after ``setRemoteDescription``.
        options: None = the defaults.

    Returns:
        The arrival times of what it receives, for ``StampedTrack``.

    Raises:
        ConfigError: this version of aiortc has other insides.
    """
    options = options or JitterOptions()
    if not all(hasattr(receiver, name) for name in (_BUFFER, _DECODER_QUEUE, _CODECS, _MAPPER, _KIND)):
        raise ConfigError("aiortc's receiver has other insides than expected; install aiortc 1.14 to 1.16")
    if getattr(receiver, _KIND) == "audio":
        buffer = WatchedJitterBuffer(_AUDIO_CAPACITY, options.audio_prefetch)
    elif options.marker_bit:
        buffer = MarkerJitterBuffer(options, lambda packet, frame: _to_decoder(receiver, packet, frame))
    else:
        buffer = WatchedJitterBuffer(_VIDEO_CAPACITY, is_video=True)
    setattr(receiver, _BUFFER, buffer)
    return buffer.arrivals


def _to_decoder(receiver: RTCRtpReceiver, packet: RtpPacket, frame: JitterFrame) -> None:
    """What the receiver itself does with a frame that its buffer returns."""
    codec = getattr(receiver, _CODECS).get(packet.payload_type)
    if codec is not None:
        frame.timestamp = getattr(receiver, _MAPPER).map(frame.timestamp)
        getattr(receiver, _DECODER_QUEUE).put((codec, frame))
