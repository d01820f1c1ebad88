"""The options of ``idm-rt camera`` alone."""

from __future__ import annotations

import argparse
from pathlib import Path

RAW_FORMATS = ("y4m", "i420", "rgb24")
MAX_SIDE_PX, MAX_FPS = 4096, 120.0


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add them to the command's parser."""
    parser.add_argument("--list", action="store_true", help="list the cameras and virtual cameras of this machine")
    parser.add_argument(
        "--source",
        default="camera",
        metavar="SOURCE",
        help="camera, camera:NAME or :NUMBER, screen, screen:DISPLAY, test (the sample call), pattern, or a video file "
        "(default: %(default)s, the first one)",
    )
    parser.add_argument(
        "--output",
        default="device",
        metavar="OUTPUT",
        help="device, device:NAME, a file (.mp4 .mkv .webm .y4m .yuv .rgb), a named pipe, - (standard output), or none "
        "(default: %(default)s, the first virtual camera)",
    )
    parser.add_argument(
        "--size", type=_even_size, metavar="WxH", help="px of the output (default: a file's own, else 1280x720)"
    )
    parser.add_argument(
        "--fps", type=_rate, default=30.0, metavar="N", help="pictures per second of the output (default: %(default)g)"
    )
    parser.add_argument("--raw-format", choices=RAW_FORMATS, default="y4m", help="of a pipe (default: %(default)s)")
    _add_view(parser)
    _add_ends(parser)


def _add_view(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--off", action="store_true", help="start switched off: the original picture is shown")
    parser.add_argument("--compare", action="store_true", help="start with before and after side by side")
    parser.add_argument("--preview", action="store_true", help="also show the picture in a window, mirrored")
    parser.add_argument("--no-mirror", action="store_true", help="do not mirror the preview")
    parser.add_argument(
        "--page-port", type=_port, metavar="N", help="port of the control page on 127.0.0.1 (default: any free one)"
    )
    parser.add_argument("--no-page", action="store_true", help="no control page")


def _add_ends(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--once", action="store_true", help="end with the file instead of beginning it again")
    parser.add_argument("--duration", type=_seconds, metavar="S", help="end after S seconds (default: go on)")
    parser.add_argument("--wait", action="store_true", help="wait for a camera that is absent or busy at the start")
    parser.add_argument(
        "--report", type=Path, metavar="FILE.json", help="at the end, write what was shown and how fast"
    )
    parser.add_argument("--overwrite", action="store_true", help="replace files that exist")


def _even_size(text: str) -> tuple[int, int]:
    width, cross, height = text.lower().partition("x")
    sides = [int(side) if side.isdecimal() else 0 for side in (width, height)]
    if not cross or any(side % 2 or not 2 <= side <= MAX_SIDE_PX for side in sides):
        raise argparse.ArgumentTypeError(
            f"{text!r} is not a size of even numbers up to {MAX_SIDE_PX}; write it like 1280x720"
        )
    return sides[0], sides[1]


def _rate(text: str) -> float:
    return _number(text, 1.0, MAX_FPS)


def _seconds(text: str) -> float:
    return _number(text, 0.1, 1e9)


def _number(text: str, low: float, high: float) -> float:
    try:
        value = float(text)
    except ValueError:
        value = float("nan")
    if not low <= value <= high:
        raise argparse.ArgumentTypeError(f"{text!r} is not a number from {low:g} to {high:g}")
    return value


def _port(text: str) -> int:
    value = int(text) if text.isdecimal() else -1
    if not 0 <= value <= 65535:
        raise argparse.ArgumentTypeError(f"{text!r} is not a port from 0 to 65535")
    return value
