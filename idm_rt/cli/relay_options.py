"""The options of ``idm-rt relay`` and ``idm-rt relay-token`` alone."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from pathlib import Path

TOKEN_ROLES = ("publish", "view", "call", "metrics")


def add_relay_arguments(parser: argparse.ArgumentParser) -> None:
    """Add those of ``relay`` to its parser."""
    parser.add_argument(
        "--host",
        default="127.0.0.1",
        metavar="H",
        help="address to bind; any but loopback needs a secret (%(default)s)",
    )
    parser.add_argument(
        "--port", type=_whole(0, 65535), default=8080, metavar="P", help="0 = any free one (%(default)s)"
    )
    add_secret(parser)
    parser.add_argument(
        "--allow-origin", action="append", default=[], metavar="URL", help="another site whose pages may use the relay"
    )
    parser.add_argument(
        "--allow-host", action="append", default=[], metavar="NAME", help="another name the relay is reached by"
    )
    parser.add_argument(
        "--stun", action="append", default=[], metavar="URL", help="ask this STUN server (default: none is asked)"
    )
    parser.add_argument("--tls-cert", type=Path, metavar="PEM", help="serve https with this certificate chain")
    parser.add_argument("--tls-key", type=Path, metavar="PEM", help="and its key")
    parser.add_argument(
        "--max-sessions", type=_whole(1, 1000), default=64, metavar="N", help="whatever the budget says (%(default)s)"
    )
    parser.add_argument(
        "--sessions-per-minute", type=_whole(1, 100_000), default=30, metavar="N", help="per address (%(default)s)"
    )
    parser.add_argument(
        "--max-bitrate",
        type=_whole(100_000, 50_000_000),
        default=6_000_000,
        metavar="BPS",
        help="of the video that is sent, bits per second (%(default)s)",
    )
    parser.add_argument(
        "--jitter-buffer",
        choices=("marker", "aiortc"),
        default="marker",
        help="marker: a frame goes on with its last packet; aiortc: with the next one's first (%(default)s)",
    )


def add_token_arguments(parser: argparse.ArgumentParser) -> None:
    """Add those of ``relay-token`` to its parser."""
    add_secret(parser)
    parser.add_argument("role", choices=TOKEN_ROLES, help="what the token is for")
    parser.add_argument("--room", default="*", metavar="NAME", help="for this room alone (default: any)")
    parser.add_argument(
        "--minutes", type=_whole(1, 1440), default=60, metavar="N", help="valid for so long (%(default)s)"
    )


def add_secret(parser: argparse.ArgumentParser) -> None:
    """Where the secret is; never on the command line itself, which every user of the machine can read."""
    parser.add_argument(
        "--secret-file",
        type=Path,
        metavar="FILE",
        help="file with the secret that signs tokens, 16 bytes or more (default: IDM_RT_RELAY_SECRET, else none)",
    )


def _whole(low: int, high: int) -> Callable[[str], int]:
    def parse(text: str) -> int:
        if not text.isdigit() or not low <= int(text) <= high:
            raise argparse.ArgumentTypeError(f"{text!r} is not a whole number from {low} to {high}")
        return int(text)

    return parse
