"""Every rule of the relay's HTTP side, each with the request that breaks it."""

from __future__ import annotations

import asyncio
import json
import time
from dataclasses import replace

import pytest
from aiohttp import ClientSession, TCPConnector
from relay_tools import (
    FRAGMENT,
    GENEROUS,
    JSON,
    SDP,
    AudioSource,
    Relay,
    VideoSource,
    Whitener,
    closing,
    join,
    offer,
    publisher,
    relay,
    viewer,
    with_limits,
)
from rtc_fakes import new_peer, use_loopback, wait_until

from idm_rt.errors import ConfigError
from idm_rt.relay import RelayOptions, Timeouts
from idm_rt.relay.tokens import Grant, mint

SECRET = b"0123456789abcdef0123456789abcdef"


@pytest.fixture(autouse=True)
def loopback(monkeypatch: pytest.MonkeyPatch) -> None:
    use_loopback(monkeypatch)


def run(body, options: RelayOptions | None = None, open_enhancer=Whitener) -> None:
    async def inside() -> None:
        async with relay(options, open_enhancer) as under_test:
            await body(under_test)

    asyncio.run(inside())


async def detail(response) -> str:
    return json.loads(await response.text())["detail"]


# --- WHIP and WHEP -------------------------------------------------------------------------------------------------


def test_whip_creates_a_session_with_location_and_etag() -> None:
    async def body(relay: Relay) -> None:
        peer = publisher()
        async with closing(peer):
            response = await relay.post("/whip/room", await offer(peer))
            assert response.status == 201 and response.content_type == SDP
            assert response.headers["Location"].startswith("/whip/room/")
            assert response.headers["ETag"].startswith('"') and response.headers["Accept-Patch"] == FRAGMENT
            answer = await response.text()
            assert "a=recvonly" in answer and "a=sendrecv" not in answer
            assert "a=end-of-candidates" in answer  # OBS wants all of them in the answer
            assert " 127.0.0.1 " in answer

    run(body)


def test_whep_answers_with_the_rooms_media() -> None:
    async def body(relay: Relay) -> None:
        sender, watcher = publisher(audio=AudioSource()), viewer("video", "audio")
        async with closing(sender, watcher):
            await join(relay, "/whip/room", sender)
            response = await relay.post("/whep/room", await offer(watcher))
            assert response.status == 201 and response.headers["Location"].startswith("/whep/room/")
            assert (await response.text()).count("a=sendonly") == 2

    run(body)


@pytest.mark.parametrize("path", ["/whip/room", "/whep/room"])
def test_options_tell_what_can_be_posted(path: str) -> None:
    async def body(relay: Relay) -> None:
        response = await relay.client.options(path)
        assert response.status == 200 and response.headers["Accept-Post"] == SDP
        response = await relay.client.options(f"{path}/session")
        assert response.status == 200 and response.headers["Accept-Patch"] == FRAGMENT

    run(body)


@pytest.mark.parametrize("method", ["GET", "HEAD", "PUT"])
@pytest.mark.parametrize("path", ["/whip/room", "/whip/room/session", "/whep/room"])
def test_reserved_methods_are_405(method: str, path: str) -> None:
    async def body(relay: Relay) -> None:
        response = await relay.client.request(method, path)
        assert response.status == 405 and "Allow" in response.headers

    run(body)


@pytest.mark.parametrize("path", ["/whip/room", "/whep/room"])
def test_another_content_type_is_415(path: str) -> None:
    async def body(relay: Relay) -> None:
        response = await relay.post(path, "v=0", "text/plain")
        assert response.status == 415 and await detail(response) == "expected Content-Type: application/sdp"

    run(body)


def test_a_body_that_is_no_sdp_is_400() -> None:
    async def body(relay: Relay) -> None:
        for text in ("", "hello", "v=0\r\nnonsense", "v=0\r\na=\x00", b"\xff\xfe", "v=0\r\na=" + "x" * 3000):
            assert (await relay.post("/whip/room", text)).status == 400, text

    run(body)


def test_an_offer_that_the_relay_does_not_take_is_422() -> None:
    async def body(relay: Relay) -> None:
        peer = publisher()
        async with closing(peer):
            good = await offer(peer)
        media = good[good.index("m=video") :]
        bad = {
            "no m= line": good[: good.index("m=video")],
            "two videos": good + media,
            "too many": good + media * 5,
            "a data channel": good.replace("m=video", "m=application"),
            "no ICE": good.replace("a=ice-ufrag", "a=ice-nothing"),
            "no DTLS": good.replace("a=fingerprint", "a=finger"),
            "too many candidates": good + "a=candidate:1 1 udp 1 10.0.0.1 9 typ host\r\n" * 70,
            "wrong direction": good.replace("a=sendonly", "a=recvonly"),
            "no codec in common": good.replace("VP8", "XY9").replace("H264", "XY8").replace("rtx", "xyz"),
        }
        for name, text in bad.items():
            response = await relay.post("/whip/room", text)
            assert response.status == 422, (name, await response.text())
        assert not relay.service.sessions and not relay.service.rooms

    run(body)


def test_a_body_over_64_kib_is_413() -> None:
    async def body(relay: Relay) -> None:
        assert (await relay.post("/whip/room", "v=0\r\n" + "a=x\r\n" * 14_000)).status == 413
        assert (await relay.post("/offer", "[" + " " * 66_000 + "]", JSON)).status == 413

    run(body)


def test_a_body_that_does_not_come_is_408() -> None:
    async def body(relay: Relay) -> None:
        reader, writer = await asyncio.open_connection(relay.client.host, relay.client.port)
        head = f"POST /whip/room HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: {SDP}\r\nContent-Length: 100\r\n\r\nv=0"
        writer.write(head.encode())
        assert b" 408 " in await asyncio.wait_for(reader.readline(), 10)
        writer.close()

    run(body, RelayOptions(limits=GENEROUS, timeouts=Timeouts(body_s=0.3)))


def test_unknown_rooms_and_sessions_are_404() -> None:
    async def body(relay: Relay) -> None:
        watcher, sender = viewer(), publisher()
        async with closing(watcher, sender):
            assert (await relay.post("/whep/nobody", await offer(watcher))).status == 404
            assert (await relay.post("/whip/no%20room", "v=0")).status == 404
            assert (await relay.client.delete("/whip/room/unknown")).status == 404
            assert (await relay.client.get("/offer/unknown")).status == 404
            joined = await join(relay, "/whip/room", sender)
            session = joined.location.rsplit("/", 1)[1]
            for wrong in (f"/whep/room/{session}", f"/whip/other/{session}", f"/offer/{session}"):
                assert (await relay.client.delete(wrong)).status == 404
            assert (await relay.client.delete(joined.location)).status == 200
            assert (await relay.client.delete(joined.location)).status == 404
            await wait_until(lambda: not relay.service.sessions)

    run(body)


def test_a_second_publisher_is_409_while_the_first_is_alive() -> None:
    async def body(relay: Relay) -> None:
        first, second = publisher(), publisher()
        async with closing(first, second):
            await join(relay, "/whip/room", first)
            response = await relay.post("/whip/room", await offer(second))
            assert response.status == 409 and int(response.headers["Retry-After"]) >= 1
            assert (await relay.post("/whip/another", second.localDescription.sdp)).status == 201

    run(body)


def test_a_viewer_while_the_publisher_is_away_is_409() -> None:
    async def body(relay: Relay) -> None:
        sender, watcher, late = publisher(), viewer(), viewer()
        async with closing(sender, watcher, late):
            joined = await join(relay, "/whip/room", sender)
            await join(relay, "/whep/room", watcher)
            assert (await relay.client.delete(joined.location)).status == 200
            response = await relay.post("/whep/room", await offer(late))
            assert response.status == 409 and int(response.headers["Retry-After"]) >= 1

    run(body)


# --- trickle -------------------------------------------------------------------------------------------------------


def fragment(sdp: str, *candidates: str) -> str:
    lines = {line.partition(":")[0]: line for line in sdp.splitlines()}
    return "\r\n".join([lines["a=ice-ufrag"], lines["a=ice-pwd"], "m=video 9 X 0", "a=mid:0", *candidates]) + "\r\n"


def test_trickle_rules() -> None:
    async def body(relay: Relay) -> None:
        peer = publisher()
        async with closing(peer):
            whole = await offer(peer)
            candidates = [line for line in whole.splitlines() if line.startswith("a=candidate")]
            bare = "\r\n".join(x for x in whole.splitlines() if "candidate" not in x) + "\r\n"
            response = await relay.post("/whip/room", bare)
            location, etag = response.headers["Location"], response.headers["ETag"]

            async def patch(text: str, kind: str = FRAGMENT, **headers: str):
                return await relay.client.patch(location, data=text, headers={"Content-Type": kind, **headers})

            good = fragment(whole, *candidates)
            assert (await patch(good)).status == 428
            response = await patch(good, **{"If-Match": '"other"'})
            assert response.status == 412 and response.headers["ETag"] == etag
            assert (await patch(good, "text/plain", **{"If-Match": etag})).status == 415
            assert (await patch(good, **{"If-Match": "*"})).status == 422  # an ICE restart
            assert (await patch(good.replace("a=ice-ufrag:", "a=ice-ufrag:x"), **{"If-Match": etag})).status == 422
            assert (await patch("nonsense", **{"If-Match": etag})).status == 400
            assert (await patch("a=foo", **{"If-Match": etag})).status == 400
            many = fragment(whole, *["a=candidate:1 1 udp 1 10.0.0.1 9 typ host"] * 65)
            assert (await patch(many, **{"If-Match": etag})).status == 422
            response = await patch(good, **{"If-Match": etag})
            assert response.status == 204 and await response.text() == ""
            assert (await patch("a=end-of-candidates\r\n", **{"If-Match": etag})).status == 204

    run(body)


def test_trickled_candidates_connect() -> None:
    async def body(relay: Relay) -> None:
        from aiortc import RTCSessionDescription

        peer = publisher()
        async with closing(peer):
            whole = await offer(peer)
            candidates = [line for line in whole.splitlines() if line.startswith("a=candidate")]
            bare = "\r\n".join(x for x in whole.splitlines() if "candidate" not in x) + "\r\n"
            response = await relay.post("/whip/room", bare)
            location, etag = response.headers["Location"], response.headers["ETag"]
            answer = "\r\n".join(x for x in (await response.text()).splitlines() if "candidate" not in x) + "\r\n"
            await peer.setRemoteDescription(RTCSessionDescription(answer, "answer"))  # it cannot reach the relay
            headers = {"Content-Type": FRAGMENT, "If-Match": etag}
            text = fragment(whole, *candidates, "a=end-of-candidates")
            assert (await relay.client.patch(location, data=text, headers=headers)).status == 204
            await wait_until(lambda: peer.connectionState == "connected")

    run(body)


# --- the page's own resource ---------------------------------------------------------------------------------------


def test_offer_rules_and_controls() -> None:
    async def body(relay: Relay) -> None:
        peer = new_peer()
        peer.addTrack(VideoSource())
        async with closing(peer):
            sdp = await offer(peer)
            for wrong in (
                "[]",
                "{",
                '{"type": "answer"}',
                '{"type": "offer"}',
                '{"type": "offer", "sdp": 5}',
                "[" * 9999,
            ):
                assert (await relay.post("/offer", wrong, JSON)).status in (400, 422)
            oneway = json.dumps({"type": "offer", "sdp": sdp.replace("a=sendrecv", "a=sendonly")})
            assert (await relay.post("/offer", oneway, JSON)).status == 422
            assert (await relay.post("/offer", sdp)).status == 415
            response = await relay.post("/offer", json.dumps({"type": "offer", "sdp": sdp}), JSON)
            made = await response.json()
            assert response.status == 201 and made["type"] == "answer"
            assert response.headers["Location"] == made["session"]

            async def patch(**values):
                return await relay.client.patch(made["session"], json=values)

            for wrong in ({"steps": 3}, {"steps": True}, {"strength": 2}, {"strength": "1"}, {"split": -1}):
                assert (await patch(**wrong)).status == 422, wrong
            assert (await patch(enabled=1)).status == 422 and (await patch(engine="x")).status == 422
            response = await patch(steps=2, strength=0.5, split=0.25, enabled=False)
            numbers = await response.json()
            assert numbers["controls"] == {"enabled": False, "steps": 2, "strength": 0.5, "split": 0.25}
            numbers = await (await relay.client.get(made["session"])).json()
            assert numbers["controls"]["steps"] == 2 and numbers["frames_in"] == 0
            assert (await relay.client.delete(made["session"])).status == 200

    run(body)


def test_options_in_the_address() -> None:
    async def body(relay: Relay) -> None:
        peer = publisher()
        async with closing(peer):
            sdp = await offer(peer)
            for wrong in ("steps=3", "steps=x", "strength=nan", "strength=2", "enhance=yes"):
                assert (await relay.post(f"/whip/room?{wrong}", sdp)).status == 422, wrong
            assert (await relay.post("/whip/room?steps=2&strength=0.5", sdp)).status == 201
            (session,) = relay.service.sessions.values()
            assert session.video.controls.steps == 2 and session.video.controls.strength == 0.5
            assert (await relay.post("/whip/plain?enhance=0", sdp)).status == 201
            assert [each.video for each in relay.service.sessions.values() if each.room == "plain"] == [None]

    run(body)


# --- who may come in -----------------------------------------------------------------------------------------------


def token(role: str, room: str = "*", seconds: float = 60.0, secret: bytes = SECRET) -> dict[str, str]:
    return {"Authorization": "Bearer " + mint(secret, Grant(role, room, int(time.time() + seconds)))}


def test_with_a_secret_every_entrance_wants_its_token() -> None:
    async def body(relay: Relay) -> None:
        peer = publisher()
        async with closing(peer):
            sdp = await offer(peer)
            response = await relay.post("/whip/room", sdp)
            assert response.status == 401 and response.headers["WWW-Authenticate"].startswith("Bearer")
            for wrong in (
                {"Authorization": "Basic abc"},
                {"Authorization": "Bearer "},
                {"Authorization": "Bearer nonsense"},
                {"Authorization": "Bearer " + "é.ü"},
                token("publish", secret=b"another secret of good length"),
                token("publish", seconds=-1),
                token("publish", seconds=90_000),
            ):
                assert (await relay.post("/whip/room", sdp, **wrong)).status == 401, wrong
            for other in (token("view"), token("publish", "other"), token("metrics")):
                assert (await relay.post("/whip/room", sdp, **other)).status == 403
            for path, kind in (("/whep/room", SDP), ("/offer", JSON)):
                assert (await relay.post(path, "{}", kind)).status == 401
            assert (await relay.client.get("/metrics")).status == 401
            assert (await relay.client.get("/metrics", headers=token("metrics"))).status == 200
            assert (await relay.client.get("/healthz")).status == 200
            assert (await relay.post("/whip/room", sdp, **token("publish", "room"))).status == 201

    run(body, RelayOptions(limits=GENEROUS, secret=SECRET))


@pytest.mark.parametrize("host", ["0.0.0.0", "192.0.2.1", "relay.example.org", "::"])
def test_any_other_address_needs_a_secret(host: str) -> None:
    with pytest.raises(ConfigError, match="no secret to sign tokens with; give --secret-file"):
        RelayOptions(host=host)
    assert RelayOptions(host=host, secret=SECRET).secret == SECRET
    with pytest.raises(ConfigError, match="the secret has 5 bytes; use 16"):
        RelayOptions(host=host, secret=b"short")


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"port": 70000}, "port is 70000; choose 0 to 65535"),
        ({"stun": ("turn:example.org",)}, "STUN server is 'turn:example.org'; write it like stun:"),
        ({"tls_certificate": "cert.pem"}, "TLS needs both a certificate and its key"),
    ],
)
def test_options_are_checked(given, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        RelayOptions(**given)


def test_other_origins_are_403_and_allowed_ones_get_cors() -> None:
    async def body(relay: Relay) -> None:
        own = f"http://{relay.client.host}:{relay.client.port}"
        for origin, status in (("https://evil.example", 403), ("null", 403), (own, 200), ("https://app.example", 200)):
            response = await relay.client.options("/whip/room", headers={"Origin": origin})
            assert response.status == status, origin
            allowed = response.headers.get("Access-Control-Allow-Origin")
            assert allowed == (origin if status == 200 else None)
        assert "location" in response.headers["Access-Control-Expose-Headers"]
        assert "PATCH" in response.headers["Access-Control-Allow-Methods"]

    run(body, RelayOptions(limits=GENEROUS, origins=("https://app.example",)))


def test_a_name_that_is_not_ours_is_421() -> None:
    """DNS rebinding: a page's own name that points at 127.0.0.1 makes its Origin equal to its Host."""

    async def body(relay: Relay) -> None:
        for host, status in (("evil.example:8080", 421), ("localhost:1", 200), ("[::1]:80", 200), ("my.relay", 200)):
            headers = {"Host": host, "Origin": f"http://{host}"}
            assert (await relay.client.get("/healthz", headers=headers)).status == status, host

    run(body, RelayOptions(limits=GENEROUS, hosts=("my.relay",)))


def test_too_many_requests_are_429() -> None:
    async def body(relay: Relay) -> None:
        statuses = [(await relay.client.get("/healthz")).status for _ in range(12)]
        assert statuses[:4] == [200] * 4 and 429 in statuses
        response = await relay.client.get("/healthz")
        assert response.status == 429 and int(response.headers["Retry-After"]) >= 1

    run(body, with_limits(requests_per_second=2.0))


def test_too_many_new_sessions_are_429() -> None:
    async def body(relay: Relay) -> None:
        peer = publisher()
        async with closing(peer):
            sdp = await offer(peer)
            statuses = [(await relay.post(f"/whip/room{index}", sdp)).status for index in range(12)]
            assert statuses[:10] == [201] * 10 and statuses[10:] == [429, 429]

    run(body, with_limits(sessions_per_minute=1.0))


def test_more_than_the_budget_is_503() -> None:
    async def body(relay: Relay) -> None:
        peer = publisher()
        async with closing(peer):
            sdp = await offer(peer)
            assert (await relay.post("/whip/first", sdp)).status == 201  # one is always admitted
            response = await relay.post("/whip/second", sdp)
            assert response.status == 503 and int(response.headers["Retry-After"]) >= 1
            assert "as many sessions as it can" in await detail(response)
            assert 'idm_relay_refused_total{rule="budget"} 1.0' in await (await relay.client.get("/metrics")).text()

    run(body, with_limits(cpu_share=0.01))


def test_more_than_the_most_sessions_is_503() -> None:
    async def body(relay: Relay) -> None:
        peer = publisher()
        async with closing(peer):
            sdp = await offer(peer)
            assert [(await relay.post(f"/whip/{name}", sdp)).status for name in "abc"] == [201, 201, 503]

    run(body, with_limits(sessions=2))


# --- probes, page, headers -----------------------------------------------------------------------------------------


def test_probes() -> None:
    async def body(relay: Relay) -> None:
        assert (await relay.client.get("/healthz")).status == 200
        await wait_until(lambda: relay.service.pool.ready)
        assert (await relay.client.get("/readyz")).status == 200
        text = await (await relay.client.get("/metrics")).text()
        assert 'idm_relay_sessions{role="publish"} 0.0' in text and "idm_relay_ready 1.0" in text
        assert 'idm_relay_requests_total{method="GET",route="/healthz",status="200"} 1.0' in text
        relay.service.ending = True
        assert (await relay.client.get("/readyz")).status == 503
        peer = publisher()
        async with closing(peer):
            assert (await relay.post("/whip/room", await offer(peer))).status == 503

    run(body)


def test_a_relay_without_an_engine_is_alive_but_not_ready() -> None:
    def broken() -> Whitener:
        raise OSError("no engine here")

    async def body(relay: Relay) -> None:
        await wait_until(lambda: relay.service.pool.error is not None)
        response = await relay.client.get("/readyz")
        assert response.status == 503 and await response.json() == {"status": "no engine"}
        assert (await relay.client.get("/healthz")).status == 200

    run(body, None, broken)


def test_the_page_may_load_nothing_from_elsewhere() -> None:
    async def body(relay: Relay) -> None:
        for path, kind in (("/", "text/html"), ("/relay.js", "text/javascript"), ("/relay.css", "text/css")):
            response = await relay.client.get(path)
            text = await response.text()
            assert response.status == 200 and response.content_type == kind
            policy = response.headers["Content-Security-Policy"]
            assert "default-src 'none'" in policy and "unsafe" not in policy
            assert response.headers["X-Content-Type-Options"] == "nosniff"
            assert 'src="http' not in text and 'href="http' not in text and "style=" not in text
            assert "onclick" not in text and "<script>" not in text
        assert (await relay.client.get("/relay.py")).status == 404
        assert (await relay.client.get("/../options.py")).status == 404

    run(body)


def test_nothing_secret_is_logged(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("DEBUG", logger="idm_rt")
    headers = token("publish")

    async def body(relay: Relay) -> None:
        peer = publisher()
        async with closing(peer):
            joined = await join(relay, "/whip/room", peer, **headers)
            await relay.client.delete(joined.location)
            session = joined.location.rsplit("/", 1)[1]
            sdp = peer.localDescription.sdp
            password = next(line for line in sdp.splitlines() if "ice-pwd" in line).partition(":")[2]
            for secret in (headers["Authorization"][8:], session, password, SECRET.decode()):
                assert secret not in caplog.text
        events = [json.loads(each.getMessage()) for each in caplog.records if each.name == "idm_rt.relay.events"]
        assert {"request", "connection", "session ended"} <= {event["event"] for event in events}
        assert all(event.get("route", "").count("{") or "session" not in event.get("route", "") for event in events)

    run(body, replace(RelayOptions(limits=GENEROUS), secret=SECRET))


def test_no_stun_server_is_asked_unless_configured() -> None:
    from idm_rt.relay.peers import new_peer as relay_peer

    def servers(options: RelayOptions) -> list[str]:
        async def make() -> list[str]:
            peer = relay_peer(options)
            found = [server.urls for server in peer._RTCPeerConnection__configuration.iceServers]
            await peer.close()
            return found

        return asyncio.run(make())

    assert servers(RelayOptions()) == []
    assert servers(RelayOptions(stun=("stun:stun.example.org",))) == ["stun:stun.example.org"]


def test_tls(tmp_path) -> None:
    import ssl
    from datetime import datetime, timedelta

    from cryptography import x509
    from cryptography.hazmat.primitives import hashes, serialization
    from cryptography.hazmat.primitives.asymmetric import ec

    from idm_rt.relay.serve import tls_context

    key, name = ec.generate_private_key(ec.SECP256R1()), x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "x")])
    now = datetime(2026, 1, 1)
    builder = x509.CertificateBuilder().subject_name(name).issuer_name(name).public_key(key.public_key())
    builder = builder.serial_number(1).not_valid_before(now).not_valid_after(now + timedelta(days=9999))
    (tmp_path / "c.pem").write_bytes(builder.sign(key, hashes.SHA256()).public_bytes(serialization.Encoding.PEM))
    private = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    (tmp_path / "k.pem").write_bytes(private)
    options = RelayOptions(tls_certificate=tmp_path / "c.pem", tls_key=tmp_path / "k.pem")
    context = tls_context(options)
    assert context is not None and context.minimum_version >= ssl.TLSVersion.TLSv1_2
    (tmp_path / "k.pem").write_text("nonsense")
    with pytest.raises(ConfigError, match=r"cannot use .*c\.pem with .*k\.pem"):
        tls_context(options)

    async def body() -> None:
        from aiohttp import web

        from idm_rt.relay import build_app

        runner = web.AppRunner(build_app(RelayOptions(limits=GENEROUS), Whitener))
        await runner.setup()
        await web.TCPSite(runner, "127.0.0.1", 0, ssl_context=context).start()
        async with ClientSession(connector=TCPConnector(ssl=False)) as client:
            response = await client.get(f"https://127.0.0.1:{runner.addresses[0][1]}/healthz")
            assert response.status == 200
        await runner.cleanup()

    asyncio.run(body())
