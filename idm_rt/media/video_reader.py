"""Decode a video file into upright RGB pictures with their exact times."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import av
import numpy as np
from av.video.frame import VideoFrame
from av.video.reformatter import Interpolation
from av.video.stream import VideoStream

from idm_rt.errors import MediaError
from idm_rt.media.files import check_input
from idm_rt.media.video_info import VideoInfo, describe, stated_end_s
from idm_rt.types import RgbImage

_LOG = logging.getLogger(__name__)

# Only files that hold the picture themselves: a play list or a concat script could name other files and addresses,
# and FFmpeg would also show plain text as "ANSI art".
_CONTAINERS = (
    *("mov", "matroska", "avi", "mpegts", "mpeg", "mpegvideo", "m4v", "flv", "ogg", "asf", "gif", "apng", "ivf"),
    *("yuv4mpegpipe", "h264", "hevc", "obu", "mjpeg", "mxf", "nut", "rm", "dv", "webp_anim"),
    *("wav", "mp3", "aac", "flac", "aiff", "ac3", "eac3", "caf", "amr", "w64", "au"),  # to say "only sound" of them
)
_OPEN_OPTIONS = {"format_whitelist": ",".join(_CONTAINERS), "protocol_whitelist": "file"}

# See yuv.py: swscale's default flags darken the picture by about one level.
_ACCURATE = int(
    Interpolation.BILINEAR | Interpolation.ACCURATE_RND | Interpolation.FULL_CHR_H_INT | Interpolation.FULL_CHR_H_INP
)


@dataclass(frozen=True, slots=True)
class DecodedFrame:
    """One picture of a video."""

    image: RgbImage  # (H, W, 3), upright, contiguous
    index: int  # 0, 1, 2, ... in display order
    pts: int  # presentation time in units of time_base
    time_base: Any  # seconds per pts unit; a rational number whose type belongs to PyAV
    duration: int  # in units of time_base; 0 if the file does not tell
    source: VideoFrame  # as decoded: stored orientation, YUV planes

    @property
    def time_s(self) -> float:
        """Presentation time in seconds."""
        return float(self.pts) * float(self.time_base)

    @property
    def timestamp_ms(self) -> int:
        """Presentation time in whole milliseconds; two frames within one millisecond share it."""
        return round(self.time_s * 1000.0)


class VideoReader:
    """Iterate once over the frames of a video file.

        with VideoReader("call.mp4") as reader:
            for frame in reader:
                frame.image, frame.time_s

    A damaged or cut file yields what can be decoded; afterwards ``damage`` says what was lost (None: nothing).

    Raises:
        MediaError: on entering: missing, empty or unreadable file, not a video, only sound, no frame at all.
    """

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        self.damage: str | None = None
        self.frames_read = 0
        self.finished = False  # all frames were delivered
        self._container: av.container.InputContainer | None = None

    def __enter__(self) -> Self:
        check_input(self.path)
        self._container = open_container(self.path)
        try:
            self._stream = _video_stream(self._container, self.path)
            self._metadata = dict(self._container.metadata)
            self._time_base: Any = self._stream.time_base
            self._sound_time_bases = [stream.time_base for stream in self._container.streams.audio]
            self._errors = 0
            self._last_end_s = self._tolerance_s = 0.0
            self._previous_pts: int | None = None
            self._decoded = self._decode()
            first = next(self._decoded, None)
            if first is None:
                raise MediaError(
                    f"{self.path} holds a video track but no frame could be decoded; record or copy it again"
                )
            self._first = first
            self.info: VideoInfo = describe(self.path, self._container, self._stream, first)
        except BaseException:
            self.close()
            raise
        self._announce()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Release the file; harmless when repeated."""
        if self._container is not None:
            self._container.close()
            self._container = None

    def __iter__(self) -> Iterator[DecodedFrame]:
        yield self._record(self._first)
        for frame in self._decoded:
            yield self._record(frame)
        self.finished = True
        self.damage = self._find_damage()
        if self.damage:
            _LOG.warning("%s: %s", self.path, self.damage)

    @property
    def metadata(self) -> dict[str, str]:
        """Tags of the container."""
        return self._metadata

    @property
    def time_base(self) -> Any:
        """Seconds per pts unit of the video track; a rational number whose type belongs to PyAV."""
        return self._time_base

    @property
    def time_bases(self) -> list[Any]:
        """Those of the video track and of the sound tracks, in this order."""
        return [self._time_base, *self._sound_time_bases]

    def _decode(self) -> Iterator[VideoFrame]:
        """Frames in display order; a packet that cannot be decoded is counted and left out."""
        assert self._container is not None
        packets = self._container.demux(self._stream)
        while True:
            try:
                packet = next(packets, None)
            except av.FFmpegError as error:  # the file breaks off inside a packet
                _LOG.debug("%s: reading stopped: %s", self.path, error)
                self._errors += 1
                packet = None
            yield from self._decode_packet(packet)
            if packet is None:
                return

    def _decode_packet(self, packet: av.Packet | None) -> Iterator[VideoFrame]:
        try:
            frames = self._stream.decode(packet)
        except av.error.EOFError:  # the demuxer's own flushing packet came before
            return
        except av.FFmpegError as error:
            _LOG.debug("%s: a packet was not decoded: %s", self.path, error)
            self._errors += 1
            return
        for frame in frames:
            self._errors += bool(frame.is_corrupt)
            yield frame

    def _record(self, frame: VideoFrame) -> DecodedFrame:
        pts, time_base = self._pts(frame), self._time_base
        record = DecodedFrame(
            image=self._to_rgb(frame),
            index=self.frames_read,
            pts=pts,
            time_base=time_base,
            duration=frame.duration,
            source=frame,
        )
        self.frames_read += 1
        self._previous_pts = pts
        self._last_end_s = (pts + frame.duration) * float(time_base)
        # How far the end may lie from what the file states: a frame and a half, more if its duration is not known.
        self._tolerance_s = max(1.5 * frame.duration * float(time_base), 0.05) if frame.duration else 0.5
        return record

    def _pts(self, frame: VideoFrame) -> int:
        """The frame's own time; for the rare file without one, the time that follows from the frame before."""
        if frame.pts is not None:
            return int(frame.pts)
        if self._previous_pts is None:
            return 0
        rate = self.info.average_rate or 25
        return self._previous_pts + max(1, round(1.0 / (float(rate) * float(self._time_base))))

    def _to_rgb(self, frame: VideoFrame) -> RgbImage:
        """Upright RGB in the size of the first frame (calls recorded from a network change theirs on the way)."""
        info = self.info
        rgb = frame.to_ndarray(format="rgb24", width=info.width, height=info.height, interpolation=_ACCURATE)
        return np.ascontiguousarray(info.orientation.apply(rgb))

    def _find_damage(self) -> str | None:
        expected = int(self._stream.frames)
        end_s = stated_end_s(self._container, self._stream) if self._container else None
        # An edit list may hide frames on purpose: fewer frames are damage only if the end is missing too.
        cut = end_s is not None and self._last_end_s < end_s - self._tolerance_s
        if not self._errors and not cut:
            return None
        found = f"{self.frames_read} of {expected}" if expected > self.frames_read else f"{self.frames_read}"
        until = f", up to {self._last_end_s:.1f} s of {end_s:.1f} s" if cut else ""
        return f"the file is damaged or cut: {found} frames could be decoded{until}"

    def _announce(self) -> None:
        info = self.info
        if info.bit_depth > 8:
            _LOG.warning("%s has %d bits per channel; it is processed and written with 8", self.path, info.bit_depth)
        if self._stream.container.streams.subtitles or self._stream.container.streams.data:
            _LOG.warning("%s: subtitle and data tracks are not copied", self.path)


def open_container(path: Path) -> av.container.InputContainer:
    """Open a media file by its content.

    Raises:
        MediaError: FFmpeg does not know the content, or it is cut before its index.
    """
    try:
        # "file:" keeps a name with a colon from being read as an address.
        return av.open(f"file:{path.absolute()}", mode="r", options=_OPEN_OPTIONS, metadata_errors="replace")
    except (av.FFmpegError, ValueError) as error:
        reason = error.strerror if isinstance(error, av.FFmpegError) else str(error)
        raise MediaError(
            f"{path} is not a photo or video that can be read, or its index is missing ({reason}); "
            "expected e.g. .mp4, .mov, .mkv, .webm, .png or .jpg content; record or copy it again"
        ) from error


def _video_stream(container: av.container.InputContainer, path: Path) -> VideoStream:
    """The first video track that is no cover picture."""
    streams = [s for s in container.streams.video if not s.disposition & av.stream.Disposition.attached_pic]
    if not streams:
        kind = "only sound" if container.streams.audio else "no video track"
        raise MediaError(f"{path} holds {kind}; expected a video or a photo with a face")
    if streams[0].codec_context is None:
        raise MediaError(
            f"{path} uses a video codec that this build of FFmpeg cannot decode; convert it to H.264 first"
        )
    return streams[0]
