"""Bearer tokens: signed, short-lived, for one room and one role.

``payload.signature``, both base64url without padding; the payload is JSON, the signature HMAC-SHA256 (RFC 2104) of the
payload's text. There is no choice of algorithm to get wrong.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
import json
from dataclasses import dataclass

ROLES = ("publish", "view", "call", "metrics")
ANY_ROOM = "*"
MAX_TOKEN_CHARS = 1024
MAX_LIFE_S = 24 * 3600


@dataclass(frozen=True, slots=True)
class Grant:
    """What a token allows."""

    role: str  # one of ROLES
    room: str  # its name, or ANY_ROOM
    expires_s: int  # Unix time

    def allows(self, role: str, room: str | None) -> bool:
        """Whether it is for this role and room (None: the request concerns no room)."""
        return self.role == role and (room is None or self.room in (room, ANY_ROOM))


class BadToken(Exception):
    """Not a token of ours, or no longer one."""


def mint(secret: bytes, grant: Grant) -> str:
    """The token for a grant.

    Raises:
        ValueError: no such role.
    """
    if grant.role not in ROLES:
        raise ValueError(f"role is {grant.role!r}, expected one of {', '.join(ROLES)}")
    body = json.dumps({"role": grant.role, "room": grant.room, "exp": grant.expires_s}, separators=(",", ":"))
    payload = _encode(body.encode())
    return f"{payload}.{_encode(_sign(secret, payload))}"


def verify(secret: bytes, token: str, now_s: float) -> Grant:
    """The grant of a token, its signature compared in constant time before anything in it is believed.

    Raises:
        BadToken: not signed with this secret, not well formed, or expired.
    """
    payload, _, signature = token.partition(".")
    if len(token) > MAX_TOKEN_CHARS or not hmac.compare_digest(_sign(secret, payload), _decode(signature)):
        raise BadToken("the token is not one of this relay's")
    try:
        body = json.loads(_decode(payload))
        grant = Grant(str(body["role"]), str(body["room"]), int(body["exp"]))
    except (ValueError, KeyError, TypeError) as error:
        raise BadToken("the token is not well formed") from error
    if not now_s < grant.expires_s <= now_s + MAX_LIFE_S:
        raise BadToken("the token has expired, or is valid for longer than a day")
    return grant


def _sign(secret: bytes, payload: str) -> bytes:
    return hmac.new(secret, payload.encode("utf-8", "surrogatepass"), hashlib.sha256).digest()


def _encode(raw: bytes) -> str:
    return base64.urlsafe_b64encode(raw).rstrip(b"=").decode()


def _decode(text: str) -> bytes:
    """The bytes of a base64url text; empty if it is none."""
    try:
        return base64.b64decode(text + "=" * (-len(text) % 4), altchars=b"-_", validate=True)
    except (binascii.Error, ValueError):
        return b""
