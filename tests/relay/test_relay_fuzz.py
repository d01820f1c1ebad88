"""Hostile input: whatever comes, the relay answers with a client error, keeps nothing, and goes on."""

from __future__ import annotations

import asyncio
import json
import threading
from collections.abc import Iterator

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from relay_tools import FRAGMENT, GENEROUS, JSON, SDP, Relay, Whitener, closing, offer, publisher, relay

from idm_rt.relay import RelayOptions, Timeouts
from idm_rt.relay.refusals import Refused
from idm_rt.relay.sdp_checks import check_offer, is_wanted
from idm_rt.relay.trickle import parse_fragment

MANY = settings(max_examples=80, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
REFUSED = {400, 401, 403, 404, 405, 408, 409, 412, 413, 415, 421, 422, 428}


class Running:
    """A relay on a thread of its own, so that properties may ask it as often as they like."""

    def __init__(self, options: RelayOptions) -> None:
        self._options, self._ready, self._end = options, threading.Event(), asyncio.Event()
        self.loop = asyncio.new_event_loop()
        self.relay: Relay | None = None
        self.offer = ""
        self._thread = threading.Thread(target=lambda: self.loop.run_until_complete(self._run()), daemon=True)
        self._thread.start()
        assert self._ready.wait(30)

    async def _run(self) -> None:
        peer = publisher()
        async with closing(peer), relay(self._options, Whitener) as self.relay:
            self.offer = await offer(peer)
            self._ready.set()
            await self._end.wait()

    def send(self, method: str, path: str, body: bytes | str = b"", **headers: str) -> int:
        async def ask() -> int:
            assert self.relay is not None
            response = await self.relay.client.request(method, path, data=body, headers=headers)
            await response.read()
            return response.status

        return asyncio.run_coroutine_threadsafe(ask(), self.loop).result(30)

    def sessions(self) -> int:
        assert self.relay is not None
        return len(self.relay.service.sessions)

    def forget(self) -> None:
        async def end() -> None:
            assert self.relay is not None
            for session in list(self.relay.service.sessions.values()):
                self.relay.service.end(session, "the test is over")

        asyncio.run_coroutine_threadsafe(end(), self.loop).result(30)

    def stop(self) -> None:
        self.loop.call_soon_threadsafe(self._end.set)
        self._thread.join(30)


@pytest.fixture(scope="module")
def running() -> Iterator[Running]:
    import aioice.ice

    before = aioice.ice.get_host_addresses
    aioice.ice.get_host_addresses = lambda use_ipv4, use_ipv6: ["127.0.0.1"]
    made = Running(RelayOptions(limits=GENEROUS, timeouts=Timeouts(connect_s=3600.0)))
    yield made
    made.stop()
    aioice.ice.get_host_addresses = before


@MANY
@given(body=st.binary(max_size=2000), path=st.sampled_from(["/whip/r", "/whep/r"]))
def test_random_bodies(running: Running, body: bytes, path: str) -> None:
    assert running.send("POST", path, body, **{"Content-Type": SDP}) in REFUSED
    assert running.sessions() == 0


SDP_LINES = st.sampled_from(
    ["m=video 9 UDP/TLS/RTP/SAVPF 97", "m=audio 0 X", "a=mid:0", "a=rtpmap:97 VP8/90000", "a=rtpmap:x", "a=fmtp:1 =;=",
     "a=group:BUNDLE", "a=group:BUNDLE 9 9", "a=ice-ufrag:", "a=ice-pwd:x", "a=setup:actpass", "a=setup:?",
     "c=IN IP4 x", "a=fingerprint:sha-256 AA", "a=fingerprint:", "a=candidate:1 1 udp 1 10.0.0.1 9 typ host",
     "a=extmap:1 x", "a=ssrc:1 x", "a=ssrc-group:FID a b", "a=rtcp:x", "a=rtcp-fb:* x", "a=sendonly",
     "a=msid:- -", "b=AS:1"]
)  # fmt: skip


@MANY
@given(data=st.data())
def test_offers_with_lines_changed_lost_or_repeated(running: Running, data: st.DataObject) -> None:
    """Some are still good offers; none may be answered with a server error."""
    lines = running.offer.splitlines()
    for _ in range(data.draw(st.integers(1, 6))):
        at = data.draw(st.integers(1, len(lines) - 1))
        change = data.draw(st.sampled_from(["drop", "repeat", "insert", "cut", "swap"]))
        if change == "drop":
            del lines[at]
        elif change == "repeat":
            lines.insert(at, lines[at])
        elif change == "insert":
            lines.insert(at, data.draw(SDP_LINES))
        elif change == "cut":
            lines[at] = lines[at][: data.draw(st.integers(0, len(lines[at])))]
        else:
            lines[at], lines[-1] = lines[-1], lines[at]
        if len(lines) < 3:
            break
    status = running.send("POST", "/whip/fuzz", "\r\n".join(lines) + "\r\n", **{"Content-Type": SDP})
    assert status == 201 or status in REFUSED
    running.forget()


JSON_VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=50),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4),
    max_leaves=12,
)


@MANY
@given(value=JSON_VALUES)
def test_random_json(running: Running, value: object) -> None:
    assert running.send("POST", "/offer", json.dumps(value), **{"Content-Type": JSON}) in REFUSED
    offer = json.dumps({"type": "offer", "sdp": value})
    assert running.send("POST", "/offer", offer, **{"Content-Type": JSON}) in REFUSED
    assert running.sessions() == 0


@MANY
@given(values=st.dictionaries(st.sampled_from(["enabled", "steps", "strength", "split", "x"]), JSON_VALUES))
def test_random_controls(running: Running, values: dict[str, object]) -> None:
    body = json.dumps({"type": "offer", "sdp": running.offer.replace("a=sendonly", "a=sendrecv")})

    async def begin() -> str:
        assert running.relay is not None
        if not running.relay.service.sessions:
            response = await running.relay.post("/offer", body, JSON)
            return (await response.json())["session"]
        return "/offer/" + next(iter(running.relay.service.sessions))

    path = asyncio.run_coroutine_threadsafe(begin(), running.loop).result(30)
    status = running.send("PATCH", path, json.dumps(values), **{"Content-Type": JSON})
    assert status in (200, 422, 400)
    assert running.send("GET", path) == 200


def test_forget_the_session_of_the_controls(running: Running) -> None:
    running.forget()
    assert running.sessions() == 0


@MANY
@given(
    path=st.text(st.characters(codec="utf-8", exclude_characters="\r\n"), max_size=60),
    method=st.sampled_from(["GET", "POST", "PATCH", "DELETE", "PUT", "OPTIONS", "TRACE"]),
)
def test_random_paths(running: Running, path: str, method: str) -> None:
    status = running.send(method, "/" + path.lstrip("/?#"), b"x")
    assert status in (200, *REFUSED)


@MANY
@given(origin=st.text(st.characters(min_codepoint=32, max_codepoint=126), max_size=60))
def test_random_origins(running: Running, origin: str) -> None:
    assert running.send("OPTIONS", "/whip/r", Origin=origin) == 403


@MANY
@given(text=st.text(st.characters(min_codepoint=32, max_codepoint=126), max_size=200))
def test_random_authorization(text: str) -> None:
    from idm_rt.relay.tokens import BadToken, verify

    with pytest.raises(BadToken):
        verify(b"0123456789abcdef", text, 0.0)


@given(st.text(max_size=500))
def test_the_checks_of_any_text(text: str) -> None:
    for check in (lambda: check_offer(text, GENEROUS), lambda: parse_fragment(text, 5)):
        try:
            check()
        except Refused as refused:
            assert refused.status in (400, 422)
    assert isinstance(is_wanted(text), bool)


@MANY
@given(data=st.data())
def test_random_fragments(data: st.DataObject) -> None:
    words = st.sampled_from(
        ["a=candidate:1 1 udp 1 10.0.0.1 9 typ host", "a=candidate:1 1 udp x 10.0.0.1 9 typ host", "a=mid:0", "m=video",
         "a=candidate:1 1 udp 1 host.local 9 typ host", "a=candidate:", "a=ice-ufrag:x", "a=end-of-candidates",
         "a=candidate:1 1 udp 1 10.0.0.1 9 typ host raddr", "a=candidate:1 x udp 1 ::1 9 typ srflx rport y"]
    )  # fmt: skip
    try:
        found = parse_fragment("\r\n".join(data.draw(st.lists(words, max_size=8))), 5)
    except Refused as refused:
        assert refused.status in (400, 422)
    else:
        assert len(found.candidates) <= found.offered <= 5


@pytest.mark.parametrize(
    ("candidate", "wanted"),
    [
        ("candidate:1 1 udp 2113937151 192.168.1.5 51000 typ host", True),
        ("candidate:1 1 UDP 1 2001:db8::1 51000 typ host", True),
        ("candidate:1 1 udp 1 4d6ae8c0.local 51000 typ host", False),
        ("candidate:1 1 tcp 1 192.168.1.5 9 typ host tcptype active", False),
        ("candidate:1 1 udp 1 224.0.0.251 5353 typ host", False),
        ("candidate:1 1 udp 1 0.0.0.0 9 typ host", False),
        ("candidate:1 1 udp 1 192.168.1.5 0 typ host", False),
        ("candidate:1 1 udp 1 192.168.1.5 70000 typ host", False),
        ("candidate:1", False),
    ],
)
def test_which_candidates_are_used(candidate: str, wanted: bool) -> None:
    assert is_wanted(candidate) is wanted


def test_fragment_kind_is_the_rfcs() -> None:
    from idm_rt.relay.trickle import CONTENT_TYPE

    assert CONTENT_TYPE == FRAGMENT
