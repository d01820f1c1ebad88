"""Make aiortc peer connections and answer offers with them."""

from __future__ import annotations

import ipaddress
import logging
from collections.abc import Callable
from dataclasses import dataclass

import aioice.ice
from aiortc import RTCConfiguration, RTCIceServer, RTCPeerConnection, RTCSessionDescription
from aiortc.mediastreams import MediaStreamTrack

from idm_rt.relay.options import RelayOptions
from idm_rt.relay.refusals import Refused
from idm_rt.webrtc import use_marker_bit, with_start_bitrate
from idm_rt.webrtc.arrivals import Arrivals

log = logging.getLogger(__name__)

_host_addresses = aioice.ice.get_host_addresses


@dataclass(frozen=True, slots=True)
class Received:
    """What a peer sends."""

    tracks: dict[str, MediaStreamTrack]  # the first of each kind
    arrivals: dict[str, Arrivals]


def gather_loopback(wanted: bool) -> None:
    """Have aioice offer 127.0.0.1 too, which it leaves out; for the whole process.

    A relay that is bound to loopback then works on a machine without any network.
    """

    def addresses(use_ipv4: bool, use_ipv6: bool) -> list[str]:
        found = [each for each in _host_addresses(use_ipv4, use_ipv6) if not ipaddress.ip_address(each).is_loopback]
        return ["127.0.0.1", *found] if use_ipv4 else found

    aioice.ice.get_host_addresses = addresses if wanted else _host_addresses


def new_peer(options: RelayOptions) -> RTCPeerConnection:
    """A peer connection that asks no server but those configured (aiortc's default is a public one)."""
    return RTCPeerConnection(RTCConfiguration(iceServers=[RTCIceServer(url) for url in options.stun]))


async def take_offer(pc: RTCPeerConnection, sdp: str, options: RelayOptions) -> Received:
    """Apply a checked offer; our jitter buffers are in place before the first packet.

    Raises:
        Refused: 422 if aiortc cannot do what it asks for, 400 if it cannot even read it.
    """
    tracks: dict[str, MediaStreamTrack] = {}
    pc.on("track", lambda track: tracks.setdefault(track.kind, track) and None)
    try:
        await pc.setRemoteDescription(RTCSessionDescription(sdp, "offer"))
    except Exception as error:  # the parser meets hostile text with any exception; nothing was begun yet
        log.debug("an offer was refused", exc_info=True)
        status = 422 if type(error).__module__.startswith("aiortc") else 400
        raise Refused(status, f"the offer cannot be used: {type(error).__name__}") from error
    receivers = [each.receiver for each in pc.getTransceivers()]
    arrivals = {each.track.kind: use_marker_bit(each, options.jitter) for each in receivers if each.track is not None}
    return Received(tracks, arrivals)


async def answer(pc: RTCPeerConnection, options: RelayOptions) -> str:
    """Answer, all candidates gathered.

    Raises:
        Refused: 422 if there is nothing to agree on.
    """
    try:
        await pc.setLocalDescription(await pc.createAnswer())
    except Exception as error:  # as above
        log.debug("an offer could not be answered", exc_info=True)
        raise Refused(422, f"the offer cannot be answered: {type(error).__name__}") from error
    return with_start_bitrate(pc.localDescription.sdp, options.codec)


def on_state(pc: RTCPeerConnection, call: Callable[[str], None]) -> None:
    """Call back with each new state of the connection."""
    pc.on("connectionstatechange", lambda: call(pc.connectionState))
