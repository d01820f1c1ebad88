"""One WebRTC session of the relay: its peer connection, its tracks, its end."""

from __future__ import annotations

import asyncio
import logging
import secrets
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from aiortc import RTCPeerConnection
from aiortc.mediastreams import MediaStreamTrack

from idm_rt.relay.measure import DelayMeter
from idm_rt.timing import Clock
from idm_rt.webrtc import DelayedAudioTrack, EnhancedVideoTrack
from idm_rt.worker import LiveStats

log = logging.getLogger(__name__)


def new_id() -> str:
    """A name that cannot be guessed: whoever knows it may change and end the session."""
    return secrets.token_urlsafe(18)


@dataclass(slots=True, eq=False)
class Session:
    """Mutable; touched on the event loop alone."""

    role: str  # publish, view or call
    room: str | None
    pc: RTCPeerConnection
    meter: DelayMeter
    clock: Clock = time.monotonic
    id: str = field(default_factory=new_id)
    etag: str = field(default_factory=lambda: f'"{secrets.token_hex(8)}"')
    ice_ufrag: str = ""  # the client's
    candidates_left: int = 0
    video: EnhancedVideoTrack | None = None
    audio: DelayedAudioTrack | None = None
    tracks: list[MediaStreamTrack] = field(default_factory=list)  # to be stopped at the end
    tasks: list[asyncio.Task[Any]] = field(default_factory=list)  # to be cancelled at the end
    frames: Callable[[], int] = lambda: 0  # media frames received so far
    started_s: float = 0.0
    connected_s: float | None = None
    moved_s: float = 0.0  # when ``frames`` was last seen to rise
    seen_frames: int = 0
    closed: str | None = None  # the reason, once it is

    def __post_init__(self) -> None:
        self.started_s = self.moved_s = self.clock()

    def look(self) -> None:
        """Note progress; called now and then."""
        now_s, frames = self.clock(), self.frames()
        if self.connected_s is None and self.pc.connectionState == "connected":
            self.connected_s = self.moved_s = now_s
        if frames != self.seen_frames:
            self.seen_frames, self.moved_s = frames, now_s

    @property
    def peer_left(self) -> bool:
        """Whether the other side has closed the connection, which aiortc's connection state does not tell."""
        return any(each.receiver.transport.state == "closed" for each in self.pc.getTransceivers())

    def stats(self) -> LiveStats | None:
        """Of the restored video; None for a viewer and where nothing is restored."""
        return self.video.stats() if self.video is not None else None

    async def close(self) -> None:
        """End tracks, tasks and connection."""
        for task in self.tasks:
            task.cancel()
        for track in self.tracks:
            track.stop()
        await self.pc.close()


def live_numbers(session: Session, now_s: float) -> dict[str, Any]:
    """What the page shows, ready for JSON."""
    numbers: dict[str, Any] = {
        "session_s": round(now_s - session.started_s, 1),
        "state": session.pc.connectionState,
        "delay_ms": session.meter.summary(),
        "frames_sent": session.meter.frames,
    }
    stats = session.stats()
    if stats is not None and session.video is not None:
        controls = session.video.controls
        numbers |= {
            "frames_in": stats.frames_in,
            "frames_out": stats.frames_out,
            "dropped": stats.dropped + stats.superseded + stats.unread,
            "bypassed": stats.bypassed,
            "age_ms": stats.age_ms,
            "work_ms": stats.work_ms,
            "engine": stats.engine,
            "level": stats.level,
            "error": session.video.worker.error,
            "controls": {
                "enabled": controls.enabled,
                "steps": controls.steps,
                "strength": controls.strength,
                "split": session.video.split,
            },
        }
    return numbers
