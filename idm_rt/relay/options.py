"""Options of the relay, validated once where they are made."""

from __future__ import annotations

import ipaddress
from dataclasses import dataclass, field
from pathlib import Path

from idm_rt.config import EnhancerConfig
from idm_rt.errors import ConfigError
from idm_rt.webrtc import CodecOptions, JitterOptions

MIN_SECRET_BYTES = 16


@dataclass(frozen=True, slots=True)
class Limits:
    """What one relay takes on."""

    body_bytes: int = 64 * 1024  # of any request
    media_lines: int = 4  # m= lines of an offer
    candidates: int = 64  # of a session, in its offer and trickled
    sessions: int = 64  # whatever the measured budget says
    cpu_share: float = 0.9  # of the machine's cores; a session that would need more is refused
    sessions_per_minute: float = 30.0  # new ones per address; ten may come at once
    requests_per_second: float = 20.0  # of all kinds per address; forty may come at once


@dataclass(frozen=True, slots=True)
class Timeouts:
    """When the relay loses patience. Seconds."""

    body_s: float = 10.0  # for a request's body
    connect_s: float = 15.0  # from the answer to the connection
    idle_s: float = 20.0  # without a frame from a publisher
    session_s: float = 4 * 3600.0  # whole session
    reconnect_s: float = 30.0  # viewers wait so long for a publisher to come back
    stale_s: float = 3.0  # a publisher that has sent nothing for so long may be replaced
    shutdown_s: float = 2.0  # to close all sessions


@dataclass(frozen=True, slots=True)
class RelayOptions:
    """One relay."""

    host: str = "127.0.0.1"
    port: int = 8080
    enhancer: EnhancerConfig = field(default_factory=EnhancerConfig)
    codec: CodecOptions = field(default_factory=CodecOptions)
    jitter: JitterOptions = field(default_factory=JitterOptions)
    limits: Limits = field(default_factory=Limits)
    timeouts: Timeouts = field(default_factory=Timeouts)
    secret: bytes | None = None  # signs tokens; None = none are asked for, on loopback only
    origins: tuple[str, ...] = ()  # allowed besides the relay's own, such as https://app.example.org
    hosts: tuple[str, ...] = ()  # names under which the relay may be addressed besides its own
    stun: tuple[str, ...] = ()  # such as stun:stun.example.org:3478; none are asked unless given
    tls_certificate: Path | None = None  # PEM, with chain
    tls_key: Path | None = None  # PEM

    def __post_init__(self) -> None:
        if not 0 <= self.port <= 65535:
            raise ConfigError(f"port is {self.port!r}; choose 0 to 65535")
        if self.secret is None and not self.is_loopback:
            raise ConfigError(
                f"host is {self.host!r}, which others can reach, and there is no secret to sign tokens with; "
                "give --secret-file FILE (see idm-rt relay --help), or bind to 127.0.0.1"
            )
        if self.secret is not None and len(self.secret) < MIN_SECRET_BYTES:
            raise ConfigError(f"the secret has {len(self.secret)} bytes; use {MIN_SECRET_BYTES} random ones or more")
        if (self.tls_certificate is None) != (self.tls_key is None):
            raise ConfigError("TLS needs both a certificate and its key; give --tls-cert and --tls-key")
        for server in self.stun:
            if not server.startswith(("stun:", "stuns:")):
                raise ConfigError(f"STUN server is {server!r}; write it like stun:stun.example.org:3478")

    @property
    def is_loopback(self) -> bool:
        """Whether only this machine can reach the relay."""
        try:
            return ipaddress.ip_address(self.host).is_loopback
        except ValueError:
            return self.host == "localhost"
