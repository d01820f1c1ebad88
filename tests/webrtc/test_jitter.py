"""The jitter buffer that releases a frame with its marked packet: delay, order, loss, and on a real receiver."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Iterable

import pytest
from aiortc.jitterbuffer import JitterBuffer
from aiortc.rtp import RtpPacket
from clocks import TurnedClock
from hypothesis import given, settings
from hypothesis import strategies as st
from rtc_fakes import VideoSource, connect, drain, read, two_peers, use_loopback, wait_until

from idm_rt.errors import ConfigError
from idm_rt.webrtc import JitterOptions, MarkerJitterBuffer, use_marker_bit
from idm_rt.webrtc.jitter import WatchedJitterBuffer

FRAME = 3000  # RTP ticks between frames
OPTIONS = JitterOptions()


def packet(sequence: int, frame: int, *, last: bool, data: bytes | None = None) -> RtpPacket:
    made = RtpPacket(sequence_number=sequence % 65536, timestamp=(frame * FRAME) % (1 << 32), marker=int(last))
    made._data = f"{frame}.{sequence} ".encode() if data is None else data
    return made


def stream(frames: int, packets_per_frame: int = 3, first_sequence: int = 0, first_frame: int = 0) -> list[RtpPacket]:
    total = frames * packets_per_frame
    return [
        packet(
            first_sequence + index,
            first_frame + index // packets_per_frame,
            last=index % packets_per_frame == packets_per_frame - 1,
        )
        for index in range(total)
    ]


class Receiver:
    """Feeds a buffer and keeps what it gives: (RTP timestamp // FRAME, data), and the key frames it asks for."""

    def __init__(self, clock: TurnedClock | None = None, options: JitterOptions = OPTIONS) -> None:
        self.out: list[tuple[int, bytes]] = []
        self.key_frames_asked = 0
        self.buffer = MarkerJitterBuffer(options, lambda _, frame: self._keep(frame), clock or TurnedClock())

    def _keep(self, frame) -> None:
        self.out.append((frame.timestamp // FRAME, frame.data))

    def feed(self, packets: Iterable[RtpPacket]) -> list[int]:
        """Returns the frames that were released on the way."""
        before = len(self.out)
        for one in packets:
            asked, frame = self.buffer.add(one)
            self.key_frames_asked += asked
            if frame is not None:
                self._keep(frame)
        return [number for number, _ in self.out[before:]]


def whole(frame: int, packets_per_frame: int = 3) -> bytes:
    first = frame * packets_per_frame
    return b"".join(f"{frame}.{first + index} ".encode() for index in range(packets_per_frame))


def test_a_frame_is_released_with_its_last_packet() -> None:
    packets = stream(2)
    receiver = Receiver()
    assert [receiver.feed([one]) for one in packets] == [[], [], [0], [], [], [1]]
    theirs = JitterBuffer(capacity=512, is_video=True)
    released = [theirs.add(one)[1] for one in packets]
    assert [frame is not None for frame in released] == [False, False, False, True, False, False]  # one frame later


def test_reordered_packets_are_put_in_order() -> None:
    packets = stream(40)
    shuffled = packets[:1] + sorted(packets[1:], key=lambda one: one.sequence_number + random.Random(1).uniform(0, 4))
    receiver = Receiver()
    assert receiver.feed(shuffled) == list(range(40))
    assert all(data == whole(number) for number, data in receiver.out)
    assert receiver.key_frames_asked == 0


def test_a_late_packet_releases_everything_that_waited_for_it() -> None:
    """aiortc gives one frame per packet, so that frames of one packet each stay late for ever after one loss."""
    packets = stream(8, packets_per_frame=1)
    late = packets[:2] + packets[3:6] + [packets[2]] + packets[6:]
    receiver = Receiver()
    assert [receiver.feed([one]) for one in late] == [[0], [1], [], [], [], [2, 3, 4, 5], [6], [7]]
    theirs = JitterBuffer(capacity=512, is_video=True)
    released = [frame.timestamp // FRAME for one in late if (frame := theirs.add(one)[1]) is not None]
    assert released[-1] == 3  # three frames behind, and would stay so


def test_a_lost_packet_is_waited_for_and_then_given_up_with_its_frame() -> None:
    clock = TurnedClock()
    receiver = Receiver(clock)
    packets = stream(40)
    del packets[4]  # the middle of frame 1
    out: list[tuple[float, int]] = []
    start_s = clock()
    for one in packets:
        out += [(clock() - start_s, number) for number in receiver.feed([one])]
        clock.advance(1 / 90)
    numbers = [number for _, number in out]
    assert numbers == [0, *range(2, 40)]
    assert receiver.key_frames_asked == 1 and receiver.buffer.given_up == 1
    resumed_s = next(when for when, number in out if number == 2)
    assert resumed_s < 3 / 30 + OPTIONS.max_wait_s + 0.05
    assert all(data == whole(number) for number, data in receiver.out)


def test_a_lost_marker_is_noticed_when_the_next_frame_begins() -> None:
    clock = TurnedClock()
    receiver = Receiver(clock)
    packets = stream(30)
    del packets[5]  # the marked packet of frame 1
    numbers = []
    for one in packets:
        numbers += receiver.feed([one])
        clock.advance(1 / 90)
    assert numbers[0] == 0 and numbers[-1] == 29 and set(range(3, 30)) <= set(numbers) and 1 not in numbers


def test_padding_between_frames_is_no_frame() -> None:
    packets = [
        packet(0, 0, last=True),
        packet(1, 0, last=False, data=b""),
        packet(2, 0, last=False, data=b""),
        packet(3, 1, last=True),
    ]
    receiver = Receiver()
    assert receiver.feed(packets) == [0, 1]


def test_a_sender_that_marks_inside_a_frame_is_not_trusted() -> None:
    receiver = Receiver()
    numbers = []
    for frame in range(6):
        numbers += receiver.feed(packet(frame * 3 + index, frame, last=index != 1) for index in range(3))
    assert numbers.count(0) == 2  # cut in two before it was noticed
    assert numbers[2:] == [1, 2, 3, 4]  # from then on a frame is held until the next one begins
    assert receiver.out[-1][1] == whole(4)


def test_the_sequence_and_the_clock_may_wrap() -> None:
    first = (1 << 32) // FRAME - 3
    receiver = Receiver()
    out = receiver.feed(stream(10, first_sequence=65530, first_frame=first))
    assert len(out) == 10 and receiver.key_frames_asked == 0


@settings(max_examples=100, deadline=None)
@given(
    seed=st.integers(0, 10_000),
    per_frame=st.integers(1, 5),
    loss=st.floats(0.0, 0.1),
    spread=st.floats(0.0, 12.0),
    duplicates=st.floats(0.0, 0.1),
)
def test_whatever_the_network_does_frames_come_whole_and_in_order(seed, per_frame, loss, spread, duplicates) -> None:
    """Loss, reordering and repetition: no frame twice, out of order or with a hole, and no standstill."""
    chance, clock = random.Random(seed), TurnedClock()
    packets = stream(150, per_frame, first_sequence=65000)
    kept = [one for one in packets if chance.random() >= loss]
    kept += [one for one in kept if chance.random() < duplicates]
    order = {id(one): index + chance.uniform(0, spread) for index, one in enumerate(packets)}
    kept.sort(key=lambda one: order[id(one)])
    receiver = Receiver(clock)
    last_s, longest_s = clock(), 0.0
    for one in kept:
        if receiver.feed([one]):
            longest_s, last_s = max(longest_s, clock() - last_s), clock()
        clock.advance(1 / 30 / per_frame)
    numbers = [number for number, _ in receiver.out]
    assert numbers == sorted(set(numbers))
    first = [65000 + number * per_frame for number in numbers]
    for sequence, (number, data) in zip(first, receiver.out, strict=True):
        parts = [f"{number}.{sequence + index} ".encode() for index in range(per_frame)]
        assert data == b"".join(parts) or number == numbers[0]  # a stream may be joined in the middle of a frame
    assert longest_s < 1.5


def test_arrivals_follow_the_pts_of_decoded_frames() -> None:
    clock = TurnedClock()
    buffer = WatchedJitterBuffer(512, is_video=True, clock=clock)
    for one in stream(5, first_sequence=65530, first_frame=(1 << 32) // FRAME - 2):
        clock.advance(0.01)
        buffer.add(one)
    start_s = clock() - 0.15
    arrived = [buffer.arrivals.of(index * FRAME) for index in range(3)]
    assert arrived[:2] == pytest.approx([start_s + 0.03, start_s + 0.06])
    assert buffer.arrivals.of(None) is None and buffer.arrivals.of(999) is None


@pytest.mark.parametrize(
    ("options", "message"),
    [({"max_wait_s": 0.0}, "max_wait_s is 0.0; choose"), ({"audio_prefetch": 9}, "audio_prefetch is 9; choose 0 to 8")],
)
def test_options_are_checked(options, message) -> None:
    with pytest.raises(ConfigError, match=message):
        JitterOptions(**options)


def test_a_receiver_with_other_insides_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"aiortc's receiver has other insides than expected; install aiortc"):
        use_marker_bit(object())  # type: ignore[arg-type]


def test_on_a_real_receiver_frames_come_without_waiting_for_the_next(monkeypatch: pytest.MonkeyPatch) -> None:
    """Five frames a second: aiortc's buffer holds each for 200 ms, ours for the time of the network and the codec."""
    use_loopback(monkeypatch)

    async def delay_s(marker_bit: bool) -> float:
        async with two_peers() as (caller, callee):
            tracks = []
            callee.on("track", tracks.append)
            source = VideoSource(fps=5)
            caller.addTrack(source)
            await caller.setLocalDescription(await caller.createOffer())
            await callee.setRemoteDescription(caller.localDescription)
            arrivals = use_marker_bit(callee.getTransceivers()[0].receiver, JitterOptions(marker_bit=marker_bit))
            await callee.setLocalDescription(await callee.createAnswer())
            await caller.setRemoteDescription(callee.localDescription)
            await read(tracks[0], 3)
            delays = []
            for _ in range(8):
                frame = await tracks[0].recv()
                delays.append(asyncio.get_running_loop().time() - arrivals.of(frame.pts))
            return sorted(delays)[len(delays) // 2]

    async def run() -> None:
        ours, theirs = await delay_s(True), await delay_s(False)
        assert theirs > 0.15 and ours < theirs - 0.08

    asyncio.run(run())


def test_two_percent_loss_freezes_nothing_for_a_second(monkeypatch: pytest.MonkeyPatch, record_property) -> None:
    """Real RTP with every 50th or so packet thrown away at the receiver, retransmissions included."""
    use_loopback(monkeypatch)
    chance = random.Random(5)

    async def run() -> None:
        async with two_peers() as (caller, callee):
            tracks = []
            callee.on("track", tracks.append)
            caller.addTrack(VideoSource(fps=30))
            await caller.setLocalDescription(await caller.createOffer())
            await callee.setRemoteDescription(caller.localDescription)
            receiver = callee.getTransceivers()[0].receiver
            use_marker_bit(receiver)
            handle, lost = receiver._handle_rtp_packet, []

            async def lossy(received: RtpPacket, arrival_time_ms: int) -> None:
                if chance.random() < 0.02:
                    lost.append(received.sequence_number)
                    return
                await handle(received, arrival_time_ms)

            receiver._handle_rtp_packet = lossy
            await callee.setLocalDescription(await callee.createAnswer())
            await caller.setRemoteDescription(callee.localDescription)
            await read(tracks[0], 1)
            loop, times = asyncio.get_running_loop(), []
            while len(times) < 240:
                await asyncio.wait_for(tracks[0].recv(), 10)
                times.append(loop.time())
            assert lost
            longest_s = max(later - earlier for earlier, later in zip(times, times[1:], strict=False))
            record_property("packets lost", len(lost))
            record_property("longest gap s", round(longest_s, 3))
            assert longest_s < 1.0

    asyncio.run(run())


def test_peers_still_connect_and_end(monkeypatch: pytest.MonkeyPatch) -> None:
    use_loopback(monkeypatch)

    async def run() -> None:
        async with two_peers() as (caller, callee):
            counts = []

            def on_track(track) -> None:
                use_marker_bit(callee.getTransceivers()[0].receiver)
                counts.append(asyncio.ensure_future(drain(track)))

            callee.on("track", on_track)
            caller.addTrack(VideoSource(count=20))
            await connect(caller, callee)
            await asyncio.sleep(1.0)
            await caller.close()
            await callee.close()
            await wait_until(lambda: counts[0].done())
            assert counts[0].result() == 20

    asyncio.run(run())
