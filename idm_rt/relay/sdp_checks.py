"""What an SDP offer must be before aiortc's parser sees it: small, bounded, WebRTC; candidates that we want."""

from __future__ import annotations

import ipaddress
import re
from dataclasses import dataclass

from idm_rt.relay.options import Limits
from idm_rt.relay.refusals import Refused

_MAX_LINE = 2048
_LINE = re.compile(r"[a-z]=.*")
_KINDS = {"audio", "video"}


@dataclass(frozen=True, slots=True)
class Offer:
    """An offer that passed."""

    sdp: str  # without candidates that the relay does not use
    candidates: int
    kinds: tuple[str, ...]  # of its m= lines, in order
    directions: tuple[str, ...]  # of its m= lines: sendrecv, sendonly, recvonly or inactive
    ice_ufrag: str


def check_offer(text: str, limits: Limits) -> Offer:
    """Check an offer.

    Raises:
        Refused: 400 if it is no SDP, 422 if it is one that the relay does not take.
    """
    lines = [line.rstrip() for line in text.split("\n")]
    while lines and not lines[-1]:
        lines.pop()
    if not lines or lines[0] != "v=0":
        raise Refused(400, "the body is no SDP: its first line is not v=0")
    if any(len(line) > _MAX_LINE or not _LINE.fullmatch(line) or not line.isprintable() for line in lines):
        raise Refused(400, "the body is no SDP: found a line that is not letter=value, or is too long")
    kinds = tuple(line[2:].split(" ")[0] for line in lines if line.startswith("m="))
    if not 1 <= len(kinds) <= limits.media_lines:
        raise Refused(422, f"the offer has {len(kinds)} m= lines, expected 1 to {limits.media_lines}")
    if not set(kinds) <= _KINDS or len(set(kinds)) < len(kinds):
        raise Refused(422, "expected at most one m=audio and one m=video line, and no other")
    for name in ("ice-ufrag", "ice-pwd", "fingerprint", "setup"):
        if not any(line.startswith(f"a={name}:") for line in lines):
            raise Refused(422, f"the offer has no a={name}: the relay speaks WebRTC alone")
    kept = [line for line in lines if not line.startswith("a=candidate:") or is_wanted(line[2:])]
    candidates = sum(line.startswith("a=candidate:") for line in lines)
    if candidates > limits.candidates:
        raise Refused(422, f"the offer has {candidates} candidates, expected {limits.candidates} at most")
    ufrag = next(line for line in lines if line.startswith("a=ice-ufrag:")).partition(":")[2]
    return Offer("\r\n".join(kept) + "\r\n", candidates, kinds, _directions(lines), ufrag)


def require_direction(offer: Offer, wanted: tuple[str, ...]) -> None:
    """Check that media flow as the resource serves them.

    Raises:
        Refused: 422, another direction.
    """
    for kind, direction in zip(offer.kinds, offer.directions, strict=True):
        if direction not in wanted:
            raise Refused(422, f"the offer's {kind} is {direction}, expected {' or '.join(wanted)}")


def is_wanted(candidate: str) -> bool:
    """Whether a ``candidate:`` line is used: UDP to an address.

    Names (mDNS, ``.local``) would make the relay ask the local network; the peer that has such a name reaches the
    relay first, and its address is learnt from that.
    """
    parts = candidate.split()
    if len(parts) < 8 or parts[2].lower() != "udp" or not parts[5].isdigit() or not 0 < int(parts[5]) < 65536:
        return False
    try:
        address = ipaddress.ip_address(parts[4])
    except ValueError:
        return False
    return not (address.is_multicast or address.is_unspecified)


def _directions(lines: list[str]) -> tuple[str, ...]:
    """Of each m= line; the session's, or sendrecv, where none is given (RFC 8866, 6.7)."""
    found: list[str] = []
    session = "sendrecv"
    for line in lines:
        if line.startswith("m="):
            found.append(session)
        elif line in ("a=sendrecv", "a=sendonly", "a=recvonly", "a=inactive"):
            if found:
                found[-1] = line[2:]
            else:
                session = line[2:]
    return tuple(found)
