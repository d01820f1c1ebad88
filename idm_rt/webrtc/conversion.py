"""Between decoded WebRTC frames and RGB pictures, on the engine's thread: only what is worked on is converted."""

from __future__ import annotations

from fractions import Fraction
from typing import TYPE_CHECKING, Any

import numpy as np
from av.video.frame import VideoFrame
from av.video.reformatter import VideoReformatter

from idm_rt.media.video_frame import Colour, changed_frame, plane_views
from idm_rt.media.video_info import is_full_range
from idm_rt.types import Frame, RgbImage, check_rgb

if TYPE_CHECKING:
    from idm_rt.enhancer import EnhancedFrame
    from idm_rt.timing import StageTimer
    from idm_rt.worker import LiveEnhancer

_PLANAR = ("yuv420p", "yuvj420p")  # what decoders give and encoders take, full range marked or not
_FULL_RANGE = 2  # AVCOL_RANGE_JPEG


class StreamFrame(Frame):
    """A decoded frame on its way through the worker. ``image`` is converted each time somebody looks at it.

    The worker needs its times alone: a frame that is bypassed or dropped is never converted.
    """

    __slots__ = ("video",)
    video: VideoFrame

    def __init__(self, video: VideoFrame, captured_s: float) -> None:
        for name, value in (
            ("video", video),
            ("pts", video.pts),
            ("time_base", _fraction(video.time_base)),
            ("captured_s", captured_s),
        ):
            object.__setattr__(self, name, value)

    @property
    def image(self) -> RgbImage:
        """(H, W, 3) uint8 RGB, a new array."""
        return to_rgb(self.video)


def _fraction(time_base: Any) -> Fraction | None:
    """PyAV 19 has a rational number of its own."""
    if not time_base:
        return None
    return Fraction(time_base.numerator, time_base.denominator)


def to_rgb(video: VideoFrame) -> RgbImage:
    """(H, W, 3) uint8 RGB of a frame that other threads may read at the same time.

    ``VideoFrame.to_ndarray`` keeps a converter inside the frame. Two threads that use it at once lock up in swscale for
    ever, and a frame whose deadline came is being encoded while the engine thread still converts it.
    """
    return check_rgb(_reformatted(video, "rgb24").to_ndarray())


def _reformatted(video: VideoFrame, pixel_format: str) -> VideoFrame:
    return VideoReformatter().reformat(video, format=pixel_format)


class StreamEnhancer:
    """An enhancer whose frames are ``StreamFrame``; it converts there and back inside ``process_frame``.

    So both conversions count as work: the governor sees them, and they happen off the event loop. The way back adds
    the difference to the decoded planes, so that pixels outside the faces stay as they were decoded.
    """

    def __init__(self, inner: LiveEnhancer) -> None:
        self._inner = inner
        self.split = 0.0  # 0..1: this much of the frame, from its left edge, shows the original for comparison

    @property
    def timer(self) -> StageTimer:
        """Times per stage."""
        return self._inner.timer

    @property
    def last(self) -> EnhancedFrame:
        """The outcome of the newest frame."""
        return self._inner.last

    @property
    def offered_steps(self) -> tuple[int, ...]:
        """Numbers of steps that the model was trained for."""
        return self._inner.offered_steps

    def process_frame(
        self,
        frame: Frame,
        timestamp_ms: float,
        *,
        steps: int | None = None,
        strength: float | None = None,
        carry: bool = False,
    ) -> Frame:
        """One ``StreamFrame``; the very same object if nothing is changed.

        Raises:
            TypeError: another kind of frame.
        """
        if not isinstance(frame, StreamFrame):
            raise TypeError(f"expected a StreamFrame, found {type(frame).__name__}")
        before = frame.image
        plain = Frame(before, frame.pts, frame.time_base, frame.captured_s)
        after = self._inner.process_frame(plain, timestamp_ms, steps=steps, strength=strength, carry=carry).image
        if after is before:
            return frame
        video = restored_video(frame.video, before, after, self.split)
        return StreamFrame(video, frame.captured_s or 0.0)

    def close(self) -> None:
        """Free everything."""
        self._inner.close()


def restored_video(source: VideoFrame, before: RgbImage, after: RgbImage, split: float = 0.0) -> VideoFrame:
    """``source`` plus the difference of two pictures, as a new 4:2:0 frame with the same times and colours.

    Args:
        source: a decoded frame of any pixel format; never changed.
        before: (H, W, 3) RGB, what it shows.
        after: (H, W, 3) RGB, what it shall show.
        split: 0..1, part of the width that stays as it was, from the left.
    """
    planar = source if source.format.name in _PLANAR else _reformatted(source, "yuv420p")
    levels = _FULL_RANGE if is_full_range(planar) else int(planar.color_range)  # made explicit: the format changes
    colour = Colour(levels, int(planar.colorspace), int(planar.color_primaries), int(planar.color_trc))
    made = changed_frame(planar, before, after, (planar.width, planar.height), "yuv420p", colour)
    if split > 0.0:
        _keep_left(made, planar, split)
    made.pts, made.time_base, made.opaque = source.pts, source.time_base, source.opaque
    return made


def _keep_left(made: VideoFrame, source: VideoFrame, split: float) -> None:
    """Copy the left part of the planes back, up to an even column."""
    columns = round(min(1.0, split) * source.width / 2) * 2
    for target, plane in zip(plane_views(made), plane_views(source), strict=True):
        width = columns if plane.shape[1] == source.width else (columns + 1) // 2
        np.copyto(target[:, :width], plane[:, :width])
