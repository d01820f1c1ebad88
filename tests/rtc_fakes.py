"""Video and audio sources, a scripted enhancer and pairs of peers for the WebRTC tests. Real RTP on 127.0.0.1."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import replace
from fractions import Fraction

import aioice.ice
import numpy as np
import pytest
from aiortc import RTCConfiguration, RTCPeerConnection
from aiortc.mediastreams import MediaStreamError, MediaStreamTrack
from av import AudioFrame, VideoFrame

from idm_rt.enhancer import EnhancedFrame
from idm_rt.timing import StageTimer
from idm_rt.types import Frame

VIDEO_CLOCK = Fraction(1, 90_000)
AUDIO_RATE = 48_000
GREY, WHITE = 90, 230  # what the source shows, and what the enhancer makes of the middle


def grey_picture(width: int = 320, height: int = 240) -> np.ndarray:
    """(H, W, 3): a gradient, so that a shift or a wrong plane shows."""
    ramp = np.linspace(40, 140, width).astype(np.uint8)
    return np.repeat(np.repeat(ramp[None, :, None], height, 0), 3, 2)


def video_frame(image: np.ndarray, pts: int, pixel_format: str = "yuv420p") -> VideoFrame:
    frame = VideoFrame.from_ndarray(np.ascontiguousarray(image), format="rgb24")
    frame = frame if pixel_format == "rgb24" else frame.reformat(format=pixel_format)
    frame.pts, frame.time_base = pts, VIDEO_CLOCK
    return frame


class VideoSource(MediaStreamTrack):
    """A camera: one picture at a steady rate, for ever or for ``count`` frames."""

    kind = "video"

    def __init__(
        self,
        image: np.ndarray | Callable[[int], np.ndarray] | None = None,
        *,
        fps: float = 30.0,
        count: int | None = None,
        pixel_format: str = "yuv420p",
    ) -> None:
        super().__init__()
        self.image = grey_picture() if image is None else image
        self.interval_s, self.count, self.pixel_format = 1.0 / fps, count, pixel_format
        self.sent = 0
        self.sent_at_s: list[float] = []
        self._start_s: float | None = None

    async def recv(self) -> VideoFrame:
        if self.readyState != "live" or self.sent == self.count:
            self.stop()
            raise MediaStreamError
        self._start_s = self._start_s or time.monotonic()
        await asyncio.sleep(max(0.0, self._start_s + self.sent * self.interval_s - time.monotonic()))
        image = self.image(self.sent) if callable(self.image) else self.image
        frame = video_frame(image, round(self.sent * self.interval_s * 90_000), self.pixel_format)
        self.sent += 1
        self.sent_at_s.append(time.monotonic())
        return frame


class AudioSource(MediaStreamTrack):
    """A microphone: 20 ms frames of whatever ``samples(index)`` gives, (960,) int16."""

    kind = "audio"

    def __init__(self, samples: Callable[[int], np.ndarray] | None = None, *, count: int | None = None) -> None:
        super().__init__()
        self._samples = samples or (lambda index: np.zeros(960, np.int16))
        self.sent, self.count = 0, count
        self.sent_at_s: list[float] = []
        self._start_s: float | None = None

    async def recv(self) -> AudioFrame:
        if self.readyState != "live" or self.sent == self.count:
            self.stop()
            raise MediaStreamError
        self._start_s = self._start_s or time.monotonic()
        await asyncio.sleep(max(0.0, self._start_s + self.sent * 0.02 - time.monotonic()))
        frame = AudioFrame.from_ndarray(self._samples(self.sent)[None, :], format="s16", layout="mono")
        frame.sample_rate, frame.pts, frame.time_base = AUDIO_RATE, self.sent * 960, Fraction(1, AUDIO_RATE)
        self.sent += 1
        self.sent_at_s.append(time.monotonic())
        return frame


class Whitener:
    """Makes the middle of the picture white; may be told to be slow, to raise, or to hang until it is let go."""

    def __init__(self, work_s: float = 0.0) -> None:
        self.timer, self.last, self.offered_steps = StageTimer(), EnhancedFrame(), (1, 2, 4)
        self.work_s = work_s
        self.error: Exception | None = None
        self.hang = False
        self.let_go = threading.Event()
        self.closed = threading.Event()
        self.threads: set[str] = set()
        self.calls: list[tuple[int | None, float | None]] = []

    def process_frame(self, frame, timestamp_ms, *, steps=None, strength=None, carry=False) -> Frame:
        self.threads.add(threading.current_thread().name)
        self.calls.append((steps, strength))
        time.sleep(self.work_s)
        if self.hang:
            self.let_go.wait(60)
        if self.error is not None:
            raise self.error
        height, width = frame.image.shape[:2]
        image = frame.image.copy()
        image[height // 4 : height * 3 // 4, width // 4 : width * 3 // 4] = WHITE
        self.last = EnhancedFrame(restored=1)
        return replace(frame, image=image)

    def close(self) -> None:
        self.closed.set()


def middle(frame: VideoFrame) -> float:
    """Mean brightness of the middle of a picture."""
    image = frame.to_ndarray(format="rgb24")
    height, width = image.shape[:2]
    return float(image[height * 3 // 8 : height * 5 // 8, width * 3 // 8 : width * 5 // 8].mean())


def is_white(frame: VideoFrame) -> bool:
    return middle(frame) > 180


async def read(track: MediaStreamTrack, count: int, timeout_s: float = 30.0) -> list:
    """The next frames."""
    return [await asyncio.wait_for(track.recv(), timeout_s) for _ in range(count)]


async def read_until(
    track: MediaStreamTrack, holds: Callable[[VideoFrame], bool], timeout_s: float = 30.0
) -> VideoFrame:
    """Read until a frame for which this holds."""
    async with asyncio.timeout(timeout_s):
        while True:
            frame = await track.recv()
            if holds(frame):
                return frame


async def drain(track: MediaStreamTrack) -> int:
    """Read to the end; how many frames that was."""
    count = 0
    try:
        while True:
            await track.recv()
            count += 1
    except MediaStreamError:
        return count


async def wait_until(holds: Callable[[], bool], timeout_s: float = 30.0) -> None:
    async with asyncio.timeout(timeout_s):
        while not holds():
            await asyncio.sleep(0.01)


def use_loopback(monkeypatch: pytest.MonkeyPatch) -> None:
    """aioice offers every address but 127.0.0.1; a test wants that one alone."""
    monkeypatch.setattr(aioice.ice, "get_host_addresses", lambda use_ipv4, use_ipv6: ["127.0.0.1"])


def new_peer() -> RTCPeerConnection:
    """A peer that asks no outside server."""
    return RTCPeerConnection(RTCConfiguration(iceServers=[]))


async def connect(caller: RTCPeerConnection, callee: RTCPeerConnection) -> None:
    """Offer and answer in one process, and the wait for the connection."""
    await caller.setLocalDescription(await caller.createOffer())
    await callee.setRemoteDescription(caller.localDescription)
    await callee.setLocalDescription(await callee.createAnswer())
    await caller.setRemoteDescription(callee.localDescription)
    await wait_until(lambda: caller.connectionState == callee.connectionState == "connected")


@asynccontextmanager
async def two_peers() -> AsyncIterator[tuple[RTCPeerConnection, RTCPeerConnection]]:
    """Two peers, closed at the end."""
    peers = new_peer(), new_peer()
    try:
        yield peers
    finally:
        await asyncio.gather(*(peer.close() for peer in peers))
