"""WHIP (RFC 9725) to publish, WHEP (draft-ietf-wish-whep) to watch, and ``/offer`` for the page.

Status codes beyond the RFCs' own: 401/403 token, 409 the room has a publisher (WHIP) or lacks one just now (WHEP),
413 body, 422 an offer that the relay does not take, 429 rate, 503 budget; the last two and 409 with Retry-After.
"""

from __future__ import annotations

from aiohttp import web

from idm_rt.relay.bodies import query_controls, read_controls, read_fraction, read_json, read_text
from idm_rt.relay.guard import Guard
from idm_rt.relay.refusals import Refused
from idm_rt.relay.rooms import ROOM_NAME
from idm_rt.relay.sdp_checks import check_offer, require_direction
from idm_rt.relay.service import RelayService
from idm_rt.relay.sessions import Session, live_numbers
from idm_rt.relay.trickle import CONTENT_TYPE, parse_fragment
from idm_rt.worker import LiveControls

SDP = "application/sdp"
_ALLOWED_KEYS = {"enabled", "steps", "strength", "split"}


class Handlers:
    """The HTTP face of a ``RelayService``."""

    def __init__(self, service: RelayService, guard: Guard) -> None:
        self._service, self._guard, self._options = service, guard, service.options

    def add_to(self, router: web.UrlDispatcher) -> None:
        """Register every route."""
        for protocol, begin in (("whip", self._publish), ("whep", self._view)):
            router.add_post(f"/{protocol}/{{room}}", begin)
            router.add_options(f"/{protocol}/{{room}}", self._endpoint_options)
            session = f"/{protocol}/{{room}}/{{session}}"
            router.add_patch(session, self._trickle)
            router.add_delete(session, self._end)
            router.add_options(session, self._session_options)
        router.add_post("/offer", self._call)
        router.add_options("/offer", self._offer_options)
        router.add_get("/offer/{session}", self._numbers)
        router.add_patch("/offer/{session}", self._control)
        router.add_delete("/offer/{session}", self._end)
        router.add_options("/offer/{session}", self._offer_options)

    async def _publish(self, request: web.Request) -> web.Response:
        room = self._enter(request, "publish")
        controls, enhance = query_controls(request, self._options)
        offer = check_offer(await read_text(request, SDP, self._options), self._options.limits)
        require_direction(offer, ("sendonly", "sendrecv"))
        self._guard.new_session(request)
        session, answer = await self._service.publish(room, offer, controls, enhance)
        return self._created(request, session, answer)

    async def _view(self, request: web.Request) -> web.Response:
        room = self._enter(request, "view")
        offer = check_offer(await read_text(request, SDP, self._options), self._options.limits)
        require_direction(offer, ("recvonly", "sendrecv"))
        self._guard.new_session(request)
        session, answer = await self._service.view(room, offer)
        return self._created(request, session, answer)

    def _enter(self, request: web.Request, role: str) -> str:
        room = request.match_info["room"]
        if not ROOM_NAME.fullmatch(room):
            raise Refused(404, "a room's name has 1 to 64 letters, digits, - or _")
        self._guard.authorize(request, role, room)
        return room

    def _created(self, request: web.Request, session: Session, answer: str) -> web.Response:
        headers = {"Location": f"{request.path}/{session.id}", "ETag": session.etag, "Accept-Patch": CONTENT_TYPE}
        for url in self._options.stun:
            headers["Link"] = f'<{url}>; rel="ice-server"'
        return web.Response(status=201, text=answer, content_type=SDP, headers=headers)

    async def _trickle(self, request: web.Request) -> web.Response:
        """More candidates. ICE restarts are not supported: 422, as RFC 9725 section 4.3.1 asks for."""
        session = self._session(request)
        if_match = request.headers.get("If-Match")
        if if_match is None:
            raise Refused(428, "expected an If-Match header with the session's ETag")
        text = await read_text(request, CONTENT_TYPE, self._options)
        if if_match == "*":
            raise Refused(422, "the relay supports no ICE restart: end the session and begin another")
        if if_match != session.etag:
            raise Refused(412, "If-Match is not the session's ETag", {"ETag": session.etag})
        fragment = parse_fragment(text, session.candidates_left)
        if fragment.ice_ufrag not in (None, session.ice_ufrag):
            raise Refused(422, "the relay supports no ICE restart: end the session and begin another")
        session.candidates_left -= fragment.offered
        for candidate in fragment.candidates:
            await session.pc.addIceCandidate(candidate)
        if fragment.complete:
            await session.pc.addIceCandidate(None)
        return web.Response(status=204)

    async def _call(self, request: web.Request) -> web.Response:
        self._guard.authorize(request, "call", None)
        controls, enhance = query_controls(request, self._options)
        body = await read_json(request, self._options)
        if body.get("type") != "offer" or not isinstance(body.get("sdp"), str):
            raise Refused(422, 'expected {"type": "offer", "sdp": "..."}')
        offer = check_offer(body["sdp"], self._options.limits)
        require_direction(offer, ("sendrecv",))
        self._guard.new_session(request)
        session, answer = await self._service.call(offer, controls, enhance)
        made = {"type": "answer", "sdp": answer, "session": f"/offer/{session.id}"}
        return web.json_response(made, status=201, headers={"Location": f"/offer/{session.id}"})

    async def _numbers(self, request: web.Request) -> web.Response:
        session = self._session(request)
        return web.json_response(live_numbers(session, self._service.clock()))

    async def _control(self, request: web.Request) -> web.Response:
        session = self._session(request)
        body = await read_json(request, self._options)
        if not set(body) <= _ALLOWED_KEYS:
            raise Refused(422, f"expected no other keys than {', '.join(sorted(_ALLOWED_KEYS))}")
        video = session.video
        if video is None:
            raise Refused(409, "the session's video is not restored")
        controls = read_controls(body, video.controls)
        split = read_fraction(body.get("split", video.split), "split")
        self._apply(session, controls)
        video.split = split
        return web.json_response(live_numbers(session, self._service.clock()))

    def _apply(self, session: Session, controls: LiveControls) -> None:
        try:
            if session.video is not None:
                session.video.set_controls(controls)
        except ValueError as error:
            raise Refused(422, str(error)) from error

    async def _end(self, request: web.Request) -> web.Response:
        self._service.end(self._session(request), "ended by the client")
        return web.Response(status=200)

    def _session(self, request: web.Request) -> Session:
        """The session of the address; whoever knows its name may use it, so that no token is needed.

        Raises:
            Refused: 404, there is none.
        """
        session = self._service.sessions.get(request.match_info["session"])
        protocol = request.path.split("/")[1]
        roles = {"whip": "publish", "whep": "view", "offer": "call"}
        if session is None or session.role != roles[protocol] or session.room != request.match_info.get("room"):
            raise Refused(404, "there is no such session; it may have ended")
        return session

    async def _endpoint_options(self, request: web.Request) -> web.Response:
        return web.Response(status=200, headers={"Accept-Post": SDP, "Allow": "POST, OPTIONS"})

    async def _session_options(self, request: web.Request) -> web.Response:
        return web.Response(status=200, headers={"Accept-Patch": CONTENT_TYPE, "Allow": "PATCH, DELETE, OPTIONS"})

    async def _offer_options(self, request: web.Request) -> web.Response:
        return web.Response(status=200, headers={"Accept-Post": "application/json"})
