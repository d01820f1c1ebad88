"""Rooms: one publisher, any number of viewers, and the feeds between them."""

from __future__ import annotations

import re
import time
from dataclasses import dataclass, field, replace

from idm_rt.relay.feeds import Feed
from idm_rt.relay.sessions import Session
from idm_rt.timing import Clock

ROOM_NAME = re.compile(r"[A-Za-z0-9_-]{1,64}")


@dataclass(slots=True, eq=False)
class Room:
    """Exists from its first publisher until its viewers have waited long enough for another one."""

    name: str
    clock: Clock = time.monotonic
    publisher: Session | None = None
    viewers: list[Session] = field(default_factory=list)
    video: Feed = field(default_factory=lambda: Feed("video"))
    audio: Feed = field(default_factory=lambda: Feed("audio"))
    empty_since_s: float | None = None  # without a publisher

    @property
    def feeds(self) -> dict[str, Feed]:
        """By kind."""
        return {"video": self.video, "audio": self.audio}

    def look(self) -> None:
        """Restore only for somebody: without viewers frames pass through untouched."""
        session = self.publisher
        if session is None or session.video is None:
            return
        controls = session.video.controls
        wanted = bool(self.video.viewers)
        if controls.enabled != wanted:
            session.video.set_controls(replace(controls, enabled=wanted))

    def close(self) -> None:
        """End every viewer's tracks."""
        for feed in self.feeds.values():
            feed.close()
