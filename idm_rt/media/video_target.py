"""Which container and codec an output file gets, and how its video track is set up."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from fractions import Fraction
from pathlib import Path
from typing import Any, cast

import av
from av.video.stream import VideoStream

from idm_rt.errors import MediaError
from idm_rt.media.video_frame import colour_like, pixel_format_for
from idm_rt.media.video_info import VideoInfo


@dataclass(frozen=True, slots=True)
class VideoTarget:
    """One kind of output file."""

    container: str  # FFmpeg's name of the muxer
    codec: str  # FFmpeg's name of the encoder
    options: dict[str, str]  # of the encoder
    muxer_options: dict[str, str] = field(default_factory=dict)


# H.264 plays everywhere. crf 17 is visually lossless, and "veryfast" leaves most of two cores to the pipeline. Without
# B-frames decoding order is display order, so that a variable frame rate and the last frame's duration survive in MP4,
# which stores durations in decoding order; the file grows by about a tenth.
_H264 = {"crf": "17", "preset": "veryfast", "bf": "0"}
_VP9 = {"crf": "20", "b": "0", "deadline": "realtime", "cpu-used": "6", "row-mt": "1"}
_INDEX_FIRST = {"movflags": "+faststart"}  # the file plays while it is still loading
_TARGETS = {
    ".mp4": VideoTarget("mp4", "libx264", _H264, _INDEX_FIRST),
    ".m4v": VideoTarget("mp4", "libx264", _H264, _INDEX_FIRST),
    ".mov": VideoTarget("mov", "libx264", _H264, _INDEX_FIRST),
    ".mkv": VideoTarget("matroska", "libx264", _H264),
    ".webm": VideoTarget("webm", "libvpx-vp9", _VP9),
}
VIDEO_SUFFIXES = tuple(_TARGETS)

_MAX_RATE = 240  # files of variable rate state nonsense such as 90000 frames per second
_DEFAULT_RATE = Fraction(30)
_MAX_TIMESCALE = 2**31  # of the 32-bit field in MP4


def video_target(path: Path) -> VideoTarget:
    """The kind of file that the suffix of ``path`` asks for.

    Raises:
        MediaError: another suffix than ``VIDEO_SUFFIXES``.
    """
    target = _TARGETS.get(path.suffix.lower())
    if target is None:
        found = f"suffix {path.suffix}" if path.suffix else "no suffix"
        raise MediaError(f"the output {path} has {found}; a video is written as one of {', '.join(VIDEO_SUFFIXES)}")
    return target


def muxer_options(target: VideoTarget, time_bases: Sequence[Any]) -> dict[str, str]:
    """Options of the container for tracks with these time bases (seconds per tick).

    MP4 and MOV state when a track starts and ends in a clock of the whole movie, of 1000 ticks per second unless told
    otherwise; start times would be rounded to it, and a last frame shorter than a millisecond would be cut off.
    """
    if target.container not in ("mp4", "mov"):
        return dict(target.muxer_options)
    ticks = 1
    for time_base in time_bases:  # the picture comes first: it is exact even if the common multiple is too large
        common = math.lcm(ticks, int(time_base.denominator))
        ticks = common if common < _MAX_TIMESCALE else ticks
    return {**target.muxer_options, "movie_timescale": str(ticks * -(-1000 // ticks))}


def add_video_stream(
    output: av.container.OutputContainer, target: VideoTarget, info: VideoInfo, size: tuple[int, int], time_base: Any
) -> VideoStream:
    """Add the video track of ``output``: stored ``size`` (width, height), everything else like ``info``."""
    rate = info.average_rate
    if rate is None or not 0 < rate <= _MAX_RATE:
        rate = _DEFAULT_RATE  # only guides the encoder; the frames keep their own times
    stream = cast(VideoStream, output.add_stream(target.codec, rate=rate, options=target.options))
    context, colour = stream.codec_context, colour_like(info)
    context.width, context.height = size
    context.pix_fmt = pixel_format_for(target.codec, *size)
    context.time_base = time_base
    stream.time_base = time_base
    context.sample_aspect_ratio = info.sample_aspect_ratio
    context.color_range, context.colorspace = colour.range, colour.space
    context.color_primaries, context.color_trc = colour.primaries, colour.trc
    if info.display_matrix is not None:
        stream.set_display_matrix(info.display_matrix)
    return stream
