"""What a video file says about itself."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any, cast

import av
from av.sidedata.sidedata import SideData
from av.sidedata.sidedata import Type as SideDataType
from av.video.frame import VideoFrame
from av.video.stream import VideoStream

from idm_rt.media.orientation import UPRIGHT, Orientation, orientation_of_matrix

_FULL_RANGE = 2  # AVCOL_RANGE_JPEG


@dataclass(frozen=True, slots=True)
class VideoInfo:
    """A video stream as it is stored, and how it wants to be shown. Colour numbers are those of ITU-T H.273."""

    path: Path
    container: str  # FFmpeg's name of the container, e.g. "mov,mp4,m4a,3gp,3g2,mj2"
    codec: str  # FFmpeg's name of the video codec, e.g. "h264"
    width: int  # px as stored, before the rotation
    height: int  # px as stored, before the rotation
    pixel_format: str  # FFmpeg's name, e.g. "yuv420p"
    bit_depth: int  # bits per colour channel
    average_rate: Fraction | None  # frames per second; None if the file does not tell
    frame_count: int | None  # as the file states it, or rate times duration; None if neither is known
    duration_s: float | None
    full_range: bool  # luma 0..255 instead of 16..235
    color_range: int  # 0 not stated, 1 limited, 2 full
    color_space: int  # matrix coefficients, 2 = not stated
    color_primaries: int  # 2 = not stated
    color_trc: int  # transfer characteristics, 2 = not stated
    sample_aspect_ratio: Fraction  # width over height of a pixel, 1 if not stated
    display_matrix: tuple[int, ...] | None  # nine fixed-point numbers, see orientation_of_matrix
    orientation: Orientation  # from stored to upright
    is_rgb: bool  # the planes hold RGB or a palette and not luma and chroma
    has_audio: bool

    @property
    def rotation_deg(self) -> int:
        """Clockwise turn 0, 90, 180 or 270 that makes the picture upright."""
        return self.orientation.rotation_deg

    @property
    def upright_size(self) -> tuple[int, int]:
        """(width, height) px as displayed (not yet stretched by the sample aspect ratio)."""
        return self.orientation.size(self.width, self.height)


def describe(path: Path, container: av.container.InputContainer, stream: VideoStream, first: VideoFrame) -> VideoInfo:
    """Collect ``VideoInfo`` from the container and the first decoded frame (which alone knows the display matrix)."""
    matrix = display_matrix(first)
    duration_s = _duration_s(container, stream)
    return VideoInfo(
        path=path,
        container=container.format.name,
        codec=stream.codec_context.name,
        width=first.width,
        height=first.height,
        pixel_format=first.format.name,
        bit_depth=max(component.bits for component in first.format.components),
        average_rate=_fraction(stream.average_rate) or _fraction(stream.guessed_rate),
        frame_count=_frame_count(stream, duration_s),
        duration_s=duration_s,
        full_range=is_full_range(first),
        color_range=int(first.color_range),
        color_space=int(first.colorspace),
        color_primaries=int(first.color_primaries),
        color_trc=int(first.color_trc),
        sample_aspect_ratio=_fraction(stream.sample_aspect_ratio) or Fraction(1),
        display_matrix=matrix,
        orientation=(orientation_of_matrix(matrix) if matrix else None) or UPRIGHT,
        is_rgb=first.format.is_rgb or first.format.has_palette,
        has_audio=bool(container.streams.audio),
    )


def is_full_range(frame: VideoFrame) -> bool:
    """Whether luma uses 0..255; the "yuvj" formats say so in their name."""
    return frame.color_range == _FULL_RANGE or frame.format.name.startswith("yuvj")


def display_matrix(frame: VideoFrame) -> tuple[int, ...] | None:
    """The nine numbers of the display matrix that the container attached to the frame, if any."""
    side_data = cast(Iterable[SideData], frame.side_data)  # a Mapping whose iterator gives the values
    matrices = (bytes(data) for data in side_data if data.type is SideDataType.DISPLAYMATRIX)
    return next((tuple(memoryview(matrix).cast("i")) for matrix in matrices), None)


def _duration_s(container: av.container.InputContainer, stream: VideoStream) -> float | None:
    if stream.duration and stream.time_base:
        return float(stream.duration) * float(stream.time_base)
    return container.duration / av.time_base if container.duration else None


def _fraction(value: Any) -> Fraction | None:
    """PyAV 18 gives Fraction or None, later versions a rational type of their own; 0 means "not known"."""
    return Fraction(int(value.numerator), int(value.denominator)) if value else None


def stated_end_s(container: av.container.InputContainer, stream: VideoStream) -> float | None:
    """When the video track ends according to the file's own index or header; None if it only could be guessed."""
    if "mov" in container.format.name and stream.duration:
        return float(stream.duration + (stream.start_time or 0)) * float(stream.time_base or 0)
    if "matroska" not in container.format.name:
        return None
    if "DURATION" in stream.metadata:  # e.g. 00:01:02.345000000, written by FFmpeg and mkvtoolnix for each track
        hours, minutes, seconds = stream.metadata["DURATION"].split(":")
        return 3600.0 * int(hours) + 60.0 * int(minutes) + float(seconds)
    alone = not container.streams.audio  # else the longest track counts
    return container.duration / av.time_base if container.duration and alone else None


def _frame_count(stream: VideoStream, duration_s: float | None) -> int | None:
    if stream.frames:
        return int(stream.frames)
    if duration_s and stream.average_rate:
        return round(duration_s * float(stream.average_rate))
    return None
