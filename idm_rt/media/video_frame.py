"""Build the frames that are handed to the encoder."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from av.video.frame import VideoFrame
from av.video.reformatter import ColorRange, Interpolation

from idm_rt.media.video_info import VideoInfo, is_full_range
from idm_rt.media.yuv import Plane, add_difference, rgb_to_planes
from idm_rt.types import RgbImage

_ACCURATE = int(Interpolation.BILINEAR | Interpolation.ACCURATE_RND | Interpolation.FULL_CHR_H_INP)
_LIMITED, _FULL = 1, 2
_BT709 = 1


@dataclass(frozen=True, slots=True)
class Colour:
    """How YUV values mean colours; the numbers of ITU-T H.273."""

    range: int  # 0 not stated (means limited), 1 limited, 2 full
    space: int  # matrix coefficients
    primaries: int
    trc: int

    @property
    def full_range(self) -> bool:
        """Luma uses 0..255 instead of 16..235."""
        return self.range == _FULL


def colour_like(info: VideoInfo) -> Colour:
    """The colour description of the source, made explicit for RGB sources, which have no YUV matrix to keep."""
    if info.is_rgb:
        return Colour(_LIMITED, _BT709, info.color_primaries, info.color_trc)
    stated = _FULL if info.full_range else info.color_range
    return Colour(stated, info.color_space, info.color_primaries, info.color_trc)


def pixel_format_for(codec: str, width: int, height: int) -> str:
    """4:2:0 wherever the codec can, because not every player shows anything else.

    H.264 crops its 4:2:0 pictures in steps of two pixels (ITU-T H.264, 7.4.2.1.1, CropUnitX = SubWidthC), so an odd
    size cannot be expressed; as 4:4:4 it can, and the size is kept to the pixel. VP9 has no such limit.
    """
    odd = width % 2 or height % 2
    return "yuv444p" if odd and codec == "libx264" else "yuv420p"


def fresh_frame(image: RgbImage, size: tuple[int, int], pixel_format: str, colour: Colour) -> VideoFrame:
    """A frame made from a picture alone; ``image`` is (H, W, 3) in stored orientation."""
    frame = VideoFrame(*size, pixel_format)
    planes = rgb_to_planes(image, colour.space, colour.full_range, subsampled=pixel_format == "yuv420p")
    _fill(frame, planes, colour)
    return frame


def changed_frame(
    source: VideoFrame,
    before: RgbImage,
    after: RgbImage,
    size: tuple[int, int],
    pixel_format: str,
    colour: Colour,
) -> VideoFrame:
    """The source's own planes plus the difference of two pictures in stored orientation; ``source`` is not touched."""
    frame = VideoFrame(*size, pixel_format)
    _fill(frame, _source_planes(source, size, pixel_format), colour)
    add_difference(plane_views(frame), before, after, colour.space, colour.full_range)
    return frame


def plane_views(frame: VideoFrame) -> list[Plane]:
    """Writable (H, W) views of the planes of an 8-bit planar frame, without the padding at the end of each line."""
    return [
        np.frombuffer(memoryview(plane), np.uint8)[: plane.height * plane.line_size].reshape(
            plane.height, plane.line_size
        )[:, : plane.width]
        for plane in frame.planes
    ]


def _source_planes(source: VideoFrame, size: tuple[int, int], pixel_format: str) -> list[Plane]:
    """The planes of a decoded YUV frame in another size, subsampling or depth; the matrix stays the same."""
    width, height = size
    stored_format = source.format.name.replace("yuvj", "yuv")  # "j" only repeats the full range
    if (source.width, source.height, stored_format) == (width, height, pixel_format):
        return plane_views(source)
    levels = ColorRange.JPEG if is_full_range(source) else ColorRange.MPEG
    converted = source.reformat(
        width, height, pixel_format, src_color_range=levels, dst_color_range=levels, interpolation=_ACCURATE
    )
    return plane_views(converted)


def _fill(frame: VideoFrame, planes: list[Plane], colour: Colour) -> None:
    for view, plane in zip(plane_views(frame), planes, strict=True):
        view[:] = plane
    frame.color_range, frame.colorspace = colour.range, colour.space
    frame.color_primaries, frame.color_trc = colour.primaries, colour.trc
