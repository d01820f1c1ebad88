"""SDP fragments with more candidates (RFC 8840), as WHIP and WHEP clients PATCH them."""

from __future__ import annotations

from dataclasses import dataclass

from aiortc import RTCIceCandidate
from aiortc.sdp import candidate_from_sdp

from idm_rt.relay.refusals import Refused
from idm_rt.relay.sdp_checks import is_wanted

CONTENT_TYPE = "application/trickle-ice-sdpfrag"


@dataclass(frozen=True, slots=True)
class Fragment:
    """What a fragment says."""

    ice_ufrag: str | None
    candidates: tuple[RTCIceCandidate, ...]  # those the relay uses
    offered: int  # all of them
    complete: bool  # no more will come


def parse_fragment(text: str, limit: int) -> Fragment:
    """Parse a fragment.

    Raises:
        Refused: 400 if it is none, 422 if it holds more than ``limit`` candidates.
    """
    ufrag, mid, media_line = None, None, -1
    found: list[RTCIceCandidate] = []
    offered, complete = 0, False
    for line in (raw.strip() for raw in text.splitlines()):
        if line.startswith("a=ice-ufrag:"):
            ufrag = line.partition(":")[2]
        elif line.startswith("m="):
            media_line, mid = media_line + 1, None
        elif line.startswith("a=mid:"):
            mid = line.partition(":")[2]
        elif line.startswith("a=end-of-candidates"):
            complete = True
        elif line.startswith("a=candidate:"):
            offered += 1
            if offered > limit:
                raise Refused(422, f"the session would have more than its {limit} candidates left")
            found += _candidate(line[2:], mid, max(0, media_line))
        elif line and not line.startswith(("a=", "s=", "v=", "o=", "t=", "c=")):
            raise Refused(400, "the body is no SDP fragment")
    if ufrag is None and not offered and not complete:
        raise Refused(400, "the fragment has neither a=ice-ufrag nor candidates")
    return Fragment(ufrag, tuple(found), offered, complete)


def _candidate(line: str, mid: str | None, media_line: int) -> list[RTCIceCandidate]:
    if not is_wanted(line):
        return []
    try:
        candidate = candidate_from_sdp(line.partition(":")[2])
    except (ValueError, AssertionError, IndexError) as error:
        raise Refused(400, "the fragment has a candidate that cannot be read") from error
    candidate.sdpMid, candidate.sdpMLineIndex = mid, media_line
    return [candidate]
