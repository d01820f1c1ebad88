"""``idm-rt relay`` and ``idm-rt relay-token``."""

from __future__ import annotations

import argparse
import os
import sys
import time
from pathlib import Path
from typing import Any

from idm_rt.cli.enhance import configure
from idm_rt.cli.output import Console
from idm_rt.errors import ConfigError

SECRET_VARIABLE = "IDM_RT_RELAY_SECRET"
_MISSING = "the relay needs aiohttp, aiortc and prometheus-client; run: pip install 'idm-rt[webrtc]'"


def run(options: argparse.Namespace, console: Console) -> int:
    """Serve until a signal comes; returns the exit code."""
    try:
        from idm_rt.relay import serve
        from idm_rt.relay.events import log_to
    except ModuleNotFoundError as error:
        raise ConfigError(f"{_MISSING} (no module {error.name!r})") from error
    relay_options = build_options(options)
    log_to(sys.stderr)
    serve(relay_options, lambda address: console.say(f"the relay is at {address} (Ctrl-C ends it)"))
    return 0


def build_options(options: argparse.Namespace) -> Any:
    """``RelayOptions`` from the command line."""
    from idm_rt.relay import Limits, RelayOptions
    from idm_rt.webrtc import CodecOptions, JitterOptions

    start = min(CodecOptions().start_bitrate, options.max_bitrate)
    return RelayOptions(
        host=options.host,
        port=options.port,
        enhancer=configure(options, temporal=True),
        codec=CodecOptions(min_bitrate=min(300_000, start), start_bitrate=start, max_bitrate=options.max_bitrate),
        jitter=JitterOptions(marker_bit=options.jitter_buffer == "marker"),
        limits=Limits(sessions=options.max_sessions, sessions_per_minute=options.sessions_per_minute),
        secret=read_secret(options.secret_file),
        origins=tuple(options.allow_origin),
        hosts=tuple(options.allow_host),
        stun=tuple(options.stun),
        tls_certificate=options.tls_cert,
        tls_key=options.tls_key,
    )


def read_secret(path: Path | None) -> bytes | None:
    """The secret of a file, or of the environment; None without either.

    Raises:
        ConfigError: the file cannot be read.
    """
    if path is None:
        return os.environ[SECRET_VARIABLE].encode() if os.environ.get(SECRET_VARIABLE) else None
    try:
        return path.read_bytes().strip()
    except OSError as error:
        raise ConfigError(f"cannot read the secret {path} ({error.strerror}); see --secret-file") from error


def run_token(options: argparse.Namespace, console: Console) -> int:
    """Print a token; returns the exit code."""
    from idm_rt.relay.options import MIN_SECRET_BYTES
    from idm_rt.relay.tokens import Grant, mint

    secret = read_secret(options.secret_file)
    if secret is None or len(secret) < MIN_SECRET_BYTES:
        raise ConfigError(
            f"a token is signed with a secret of {MIN_SECRET_BYTES} bytes or more; make one with "
            f"'openssl rand -hex 32 > secret' and give --secret-file secret (or set {SECRET_VARIABLE})"
        )
    expires_s = int(time.time()) + options.minutes * 60
    console.say(mint(secret, Grant(options.role, options.room, expires_s)))
    return 0
