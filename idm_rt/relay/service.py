"""What the relay does, without HTTP: publish, view, call, look after the sessions, end."""

from __future__ import annotations

import asyncio
import logging
import time
from collections import Counter

from aiortc.mediastreams import MediaStreamTrack

from idm_rt.cpu_info import available_cpus
from idm_rt.relay.admission import RETRY_AFTER_S, Admission
from idm_rt.relay.events import tell
from idm_rt.relay.measure import DelayMeter
from idm_rt.relay.metrics import Metrics
from idm_rt.relay.options import RelayOptions
from idm_rt.relay.peers import Received, answer, new_peer, on_state, take_offer
from idm_rt.relay.pool import EnhancerPool
from idm_rt.relay.refusals import Refused, busy
from idm_rt.relay.rooms import Room
from idm_rt.relay.sdp_checks import Offer
from idm_rt.relay.sessions import Session
from idm_rt.timing import Clock
from idm_rt.webrtc import DelayedAudioTrack, EnhancedVideoTrack
from idm_rt.webrtc.arrivals import StampedTrack
from idm_rt.worker import LiveControls

log = logging.getLogger(__name__)

_LOOK_EVERY_S = 0.5


class RelayService:
    """The sessions of one relay. Everything happens on one event loop."""

    def __init__(
        self, options: RelayOptions, pool: EnhancerPool, metrics: Metrics, *, clock: Clock = time.monotonic
    ) -> None:
        self.options, self.pool, self.metrics, self.clock = options, pool, metrics, clock
        self.sessions: dict[str, Session] = {}
        self.rooms: dict[str, Room] = {}
        self.admission = Admission(available_cpus(), options.limits.cpu_share)
        self.ending = False
        self._closing: set[asyncio.Task[None]] = set()
        metrics.watch(self)

    def counts(self) -> Counter[str]:
        """Sessions by role."""
        return Counter(session.role for session in self.sessions.values())

    async def publish(self, room_name: str, offer: Offer, controls: LiveControls, enhance: bool) -> tuple[Session, str]:
        """Begin a publisher's session; returns it and the answer.

        Raises:
            Refused: 409 if the room has a publisher that is alive, 503 if there is no room for more, 422, 400.
        """
        room = self.rooms.get(room_name)
        if room is not None and room.publisher is not None and not self._is_stale(room.publisher):
            raise Refused(409, f"room {room_name!r} has a publisher", {"Retry-After": "2"})
        session = self._new_session("publish", room_name, offer)
        try:
            received = await take_offer(session.pc, offer.sdp, self.options)
            self._receive(session, received, controls, enhance)
            text = await answer(session.pc, self.options)
        except BaseException:
            await self._drop(session)
            raise
        room = self.rooms.setdefault(room_name, Room(room_name, self.clock))
        if room.publisher is not None:
            self.end(room.publisher, "replaced by another publisher")
        room.publisher, room.empty_since_s = session, None
        for track in session.tracks:
            room.feeds[track.kind].attach(track)
        session.frames = lambda: room.video.frames + room.audio.frames
        room.look()
        return session, text

    async def view(self, room_name: str, offer: Offer) -> tuple[Session, str]:
        """Begin a viewer's session; returns it and the answer.

        Raises:
            Refused: 404 if there is no such room, 409 if its publisher is away, 503, 422, 400.
        """
        room = self.rooms.get(room_name)
        if room is None:
            raise Refused(404, f"there is no room {room_name!r}", {"Retry-After": "2"})
        if room.publisher is None:
            raise Refused(409, f"the publisher of room {room_name!r} is away", {"Retry-After": "2"})
        session = self._new_session("view", room_name, offer)
        try:
            await take_offer(session.pc, offer.sdp, self.options)
            for transceiver in session.pc.getTransceivers():
                track = room.feeds[transceiver.kind].subscribe()
                session.tracks.append(track)
                session.pc.addTrack(track)
                transceiver.direction = "sendonly"  # what a viewer sends would not be read
            text = await answer(session.pc, self.options)
        except BaseException:
            await self._drop(session)
            raise
        session.frames = lambda: room.video.frames + room.audio.frames
        room.viewers.append(session)
        room.look()
        return session, text

    async def call(self, offer: Offer, controls: LiveControls, enhance: bool) -> tuple[Session, str]:
        """Begin a session whose video comes back restored to its sender; returns it and the answer.

        Raises:
            Refused: 503, 422, 400.
        """
        session = self._new_session("call", None, offer)
        try:
            received = await take_offer(session.pc, offer.sdp, self.options)
            self._receive(session, received, controls, enhance)
            for track in session.tracks:
                session.pc.addTrack(track)
            text = await answer(session.pc, self.options)
        except BaseException:
            await self._drop(session)
            raise
        session.frames = lambda: session.meter.frames
        return session, text

    def _new_session(self, role: str, room: str | None, offer: Offer) -> Session:
        if self.ending:
            raise busy("the relay is shutting down", RETRY_AFTER_S)
        counts = self.counts()
        self.admission.measure(counts)
        if len(self.sessions) >= self.options.limits.sessions or not self.admission.admits(role, counts):
            self.metrics.refused("budget")
            raise busy("this machine carries as many sessions as it can", RETRY_AFTER_S)
        session = Session(role, room, new_peer(self.options), DelayMeter(self.metrics.delay), self.clock)
        session.ice_ufrag = offer.ice_ufrag
        session.candidates_left = self.options.limits.candidates - offer.candidates
        self.sessions[session.id] = session
        on_state(session.pc, lambda state: self._on_state(session, state))
        return session

    def _receive(self, session: Session, received: Received, controls: LiveControls, enhance: bool) -> None:
        """Wrap what the peer sends: video restored, audio as late as that."""
        kinds = received.tracks
        if "video" in kinds:
            stamped = StampedTrack(kinds["video"], received.arrivals["video"].of, session.meter.add)
            video: MediaStreamTrack = stamped
            if enhance:
                video = session.video = EnhancedVideoTrack(stamped, self.pool.open, controls=controls)
            session.tracks.append(video)
        if "audio" in kinds:
            session.audio = DelayedAudioTrack(
                kinds["audio"],
                lambda: session.video.delay_s if session.video is not None else 0.0,
                received.arrivals["audio"].of,
            )
            session.tracks.append(session.audio)

    def _is_stale(self, session: Session) -> bool:
        """Whether a publisher has sent nothing for so long that another may take its place."""
        session.look()
        return session.peer_left or self.clock() - session.moved_s > self.options.timeouts.stale_s

    def _on_state(self, session: Session, state: str) -> None:
        tell("connection", session, state=state)
        if state in ("failed", "closed"):
            self.end(session, f"the connection is {state}")

    def end(self, session: Session, reason: str) -> None:
        """End a session; its sockets are closed in the background. Twice is fine."""
        if session.closed is not None:
            return
        session.closed = reason
        self.metrics.finished(session)
        self.sessions.pop(session.id, None)
        room = self.rooms.get(session.room or "")
        if room is not None and session is room.publisher:
            room.publisher, room.empty_since_s = None, self.clock()
            for feed in room.feeds.values():
                feed.detach()
        elif room is not None and session in room.viewers:
            room.viewers.remove(session)
        tell("session ended", session, reason=reason, seconds=round(self.clock() - session.started_s, 1))
        task = asyncio.ensure_future(self._close(session))
        self._closing.add(task)
        task.add_done_callback(self._closing.discard)

    async def _close(self, session: Session) -> None:
        try:
            await session.close()
        except Exception:  # a peer that cannot be closed must not keep the others from being closed
            log.exception("a session could not be closed")

    async def _drop(self, session: Session) -> None:
        """A session that never began."""
        self.sessions.pop(session.id, None)
        session.closed = "refused"
        await self._close(session)

    async def look_after(self) -> None:
        """Time-outs, empty rooms, the budget; until cancelled."""
        while True:
            await asyncio.sleep(_LOOK_EVERY_S)
            self.admission.measure(self.counts())
            for session in list(self.sessions.values()):
                reason = self._overdue(session)
                if reason is not None:
                    self.end(session, reason)
            for room in list(self.rooms.values()):
                self._look_at(room)

    def _overdue(self, session: Session) -> str | None:
        session.look()
        now_s, timeouts = self.clock(), self.options.timeouts
        if session.connected_s is None:
            return "not connected in time" if now_s - session.started_s > timeouts.connect_s else None
        if session.peer_left:
            return "the peer has left"
        if now_s - session.started_s > timeouts.session_s:
            return "the longest session is over"
        if session.role != "view" and now_s - session.moved_s > timeouts.idle_s:
            return "no frame for too long"
        return None

    def _look_at(self, room: Room) -> None:
        room.look()
        if room.empty_since_s is None:
            return
        if not room.viewers or self.clock() - room.empty_since_s > self.options.timeouts.reconnect_s:
            for viewer in list(room.viewers):
                self.end(viewer, "the publisher did not come back")
            room.close()
            del self.rooms[room.name]

    async def close(self) -> bool:
        """End every session and wait for it, no longer than ``shutdown_s``; False if some are not closed yet."""
        self.ending = True
        for session in list(self.sessions.values()):
            self.end(session, "the relay is shutting down")
        for room in self.rooms.values():
            room.close()
        self.rooms.clear()
        if not self._closing:
            return True
        _, left = await asyncio.wait(self._closing, timeout=self.options.timeouts.shutdown_s)
        return not left
