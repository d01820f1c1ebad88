"""A relay under test in this process: the real application, a scripted enhancer, real offers and real RTP."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace

from aiohttp import ClientResponse, web
from aiohttp.test_utils import TestClient, TestServer
from aiortc import RTCPeerConnection, RTCSessionDescription
from aiortc.mediastreams import MediaStreamTrack
from rtc_fakes import AudioSource, VideoSource, Whitener, new_peer, wait_until

from idm_rt.relay import Limits, RelayOptions, build_app
from idm_rt.relay.app import SERVICE
from idm_rt.relay.service import RelayService

SDP, JSON, FRAGMENT = "application/sdp", "application/json", "application/trickle-ice-sdpfrag"
GENEROUS = Limits(sessions_per_minute=100_000.0, requests_per_second=10_000.0, cpu_share=1000.0)


@dataclass
class Relay:
    """The client side of a relay under test."""

    client: TestClient
    service: RelayService
    app: web.Application

    async def post(self, path: str, body: str | bytes = "", kind: str = SDP, **headers: str) -> ClientResponse:
        return await self.client.post(path, data=body, headers={"Content-Type": kind, **headers})


@asynccontextmanager
async def relay(
    options: RelayOptions | None = None, open_enhancer: Callable[[], Whitener] = Whitener
) -> AsyncIterator[Relay]:
    """A running relay; limits are generous unless the options say otherwise."""
    options = options or RelayOptions(limits=GENEROUS)
    app = build_app(options, open_enhancer)
    async with TestClient(TestServer(app)) as client:
        yield Relay(client, app[SERVICE], app)


async def offer(peer: RTCPeerConnection) -> str:
    """The peer's offer, candidates gathered."""
    await peer.setLocalDescription(await peer.createOffer())
    return peer.localDescription.sdp


def publisher(video: MediaStreamTrack | None = None, audio: MediaStreamTrack | None = None) -> RTCPeerConnection:
    """A peer that sends."""
    peer = new_peer()
    peer.addTransceiver(video or VideoSource(), "sendonly")
    if audio is not None:
        peer.addTransceiver(audio, "sendonly")
    return peer


def viewer(*kinds: str) -> RTCPeerConnection:
    """A peer that receives."""
    peer = new_peer()
    for kind in kinds or ("video",):
        peer.addTransceiver(kind, "recvonly")
    return peer


@dataclass
class Joined:
    """A session with a relay, as its client sees it."""

    peer: RTCPeerConnection
    location: str
    etag: str
    tracks: dict[str, MediaStreamTrack]


async def join(relay: Relay, path: str, peer: RTCPeerConnection, **headers: str) -> Joined:
    """Begin a WHIP or WHEP session and wait for its connection."""
    tracks: dict[str, MediaStreamTrack] = {}
    peer.on("track", lambda track: tracks.setdefault(track.kind, track) and None)
    response = await relay.post(path, await offer(peer), **headers)
    text = await response.text()
    assert response.status == 201, text
    await peer.setRemoteDescription(RTCSessionDescription(text, "answer"))
    await wait_until(lambda: peer.connectionState == "connected")
    return Joined(peer, response.headers["Location"], response.headers["ETag"], tracks)


@asynccontextmanager
async def closing(*peers: RTCPeerConnection) -> AsyncIterator[None]:
    """Close the peers at the end."""
    try:
        yield
    finally:
        await asyncio.gather(*(peer.close() for peer in peers))


def with_limits(**limits: float) -> RelayOptions:
    """Generous but for these."""
    return RelayOptions(limits=replace(GENEROUS, **limits))


__all__ = ["AudioSource", "VideoSource", "Whitener"]
