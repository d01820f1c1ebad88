"""Encode processed pictures into a video file that keeps everything else of its source."""

from __future__ import annotations

import logging
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from types import TracebackType
from typing import Self

import av
import numpy as np
from av.video.frame import VideoFrame

from idm_rt.errors import MediaError
from idm_rt.media.audio_copy import AudioCopy, start_s
from idm_rt.media.files import PendingFile, check_output, os_errors
from idm_rt.media.video_frame import changed_frame, colour_like, fresh_frame, pixel_format_for
from idm_rt.media.video_reader import DecodedFrame, VideoReader
from idm_rt.media.video_target import VideoTarget, add_video_stream, muxer_options, video_target
from idm_rt.types import RgbImage, check_rgb

_LOG = logging.getLogger(__name__)

_MUXER_TAGS = {"major_brand", "minor_version", "compatible_brands", "encoder"}  # the new file has its own


class VideoWriter:
    """Write the frames of ``like``, processed, to ``path``.

        with VideoReader(source) as reader, VideoWriter(path, like=reader) as writer:
            for frame in reader:
                writer.write(process(frame.image), frame)

    Kept: size, number of frames, every time stamp (Matroska and WebM store whole milliseconds), rotation, pixel shape,
    colour range, matrix, primaries and transfer, sound (copied undecoded), metadata. Pixels that were not changed reach
    the encoder as the source's own YUV values. The file is written under a temporary name and moved into place when
    the block ends well; on any exception, Ctrl-C too, it is deleted. If no picture was changed and the suffix is the
    same, the output is a bit-for-bit copy of the input (see ``copied``).

    Args:
        path: the suffix decides the format, one of ``video_target.VIDEO_SUFFIXES``.
        like: an entered reader; its file is the source of everything that is kept.
        overwrite: replace an existing file.
        size: (width, height) px of the upright pictures that will be written; None = those of ``like``.
        copy_unchanged: see above; False always encodes.

    Raises:
        MediaError: on entering: unsupported suffix, output refused, sound that the format cannot hold;
            later: disk full, encoder failure.
    """

    def __init__(
        self,
        path: str | Path,
        *,
        like: VideoReader,
        overwrite: bool = False,
        size: tuple[int, int] | None = None,
        copy_unchanged: bool = True,
    ) -> None:
        self.path = Path(path)
        self.frames_written = 0
        self.frames_changed = 0
        self.copied = False  # the output is the input, bit for bit
        self._reader = like
        self._info = like.info
        self._overwrite = overwrite
        self._copy_unchanged = copy_unchanged and size is None
        self._size = size or like.info.upright_size
        self._stored_size = like.info.orientation.size(*self._size)
        self._colour = colour_like(like.info)
        self._durations: dict[int, int] = {}
        self._last_pts: int | None = None
        self._output: av.container.OutputContainer | None = None
        self._audio: AudioCopy | None = None

    def __enter__(self) -> Self:
        target = video_target(self.path)
        check_output(self.path, source=self._reader.path, overwrite=self._overwrite)
        self._pending = PendingFile(self.path)
        try:
            with _writing(self.path):
                self._open(target)
        except BaseException:
            self._discard()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        try:
            if error is None:
                self._finish()
                self._pending.commit()
        finally:
            self._discard()  # after commit nothing is left to delete

    def write(self, image: RgbImage, frame: DecodedFrame) -> None:
        """Append ``image``, (H, W, 3) uint8 RGB and upright, as the processed picture of ``frame``.

        Raises:
            ValueError: the size of ``image`` is not that of the writer.
            MediaError: the disk is full, or the encoder failed.
        """
        width, height = self._size
        if check_rgb(image).shape[:2] != (height, width):
            raise ValueError(f"image must be {width}x{height}, found {image.shape[1]}x{image.shape[0]}")
        encoded = self._encodable(image, frame)
        encoded.pts = self._rising(frame.pts)
        encoded.time_base = frame.time_base
        if frame.duration > 0:
            self._durations[encoded.pts] = frame.duration
        with _writing(self.path):
            self._mux(encoded)
        self.frames_written += 1

    def _open(self, target: VideoTarget) -> None:
        """Open the file and write its header, so that what cannot work fails before any long work."""
        self._output = av.open(
            str(self._pending.temporary.absolute()),
            mode="w",
            format=target.container,
            container_options=muxer_options(target, self._reader.time_bases),
        )
        kept = {key: value for key, value in self._reader.metadata.items() if key not in _MUXER_TAGS}
        self._output.metadata.update(kept)
        self._pixel_format = pixel_format_for(target.codec, *self._stored_size)
        self._stream = add_video_stream(self._output, target, self._info, self._stored_size, self._reader.time_base)
        if self._info.has_audio:
            from_zero = target.container in ("matroska", "webm")
            self._audio = AudioCopy(self._reader.path, self._output, self.path.suffix, from_zero)
        self._output.start_encoding()

    def _encodable(self, image: RgbImage, frame: DecodedFrame) -> VideoFrame:
        """The frame to encode, in stored orientation."""
        same = image is frame.image or np.array_equal(image, frame.image)
        self.frames_changed += not same
        after = self._stored(image)
        if self._info.is_rgb or image.shape != frame.image.shape:
            return fresh_frame(after, self._stored_size, self._pixel_format, self._colour)
        before = after if same else self._stored(frame.image)
        return changed_frame(frame.source, before, after, self._stored_size, self._pixel_format, self._colour)

    def _stored(self, image: RgbImage) -> RgbImage:
        return np.ascontiguousarray(self._info.orientation.undo(image))

    def _rising(self, pts: int) -> int:
        """``pts``, or the next free tick for the broken file whose times stand still or go back."""
        if self._last_pts is not None and pts <= self._last_pts:
            _LOG.warning("%s: a frame at %d follows one at %d; moved", self._reader.path, pts, self._last_pts)
            pts = self._last_pts + 1
        self._last_pts = pts
        return pts

    def _mux(self, frame: VideoFrame | None) -> None:
        """Encode a frame (None flushes) and write what comes out, with the sound that belongs before it."""
        assert self._output is not None
        for packet in self._stream.encode(frame):
            packet.duration = self._durations.pop(packet.pts or 0, packet.duration)
            if self._audio is not None:
                self._audio.copy_until(start_s(packet))
            self._output.mux_one(packet)

    def _finish(self) -> None:
        reader = self._reader
        whole = reader.finished and reader.damage is None and self.frames_written == reader.frames_read
        same_suffix = self.path.suffix.lower() == reader.path.suffix.lower()
        if self._copy_unchanged and whole and same_suffix and self.frames_changed == 0:
            self._copy_source()
            return
        with _writing(self.path):
            self._mux(None)
            if self._audio is not None:
                self._audio.finish()
            if self._output is not None:
                self._output.close()

    def _copy_source(self) -> None:
        self._close()
        with os_errors(self.path):
            shutil.copyfile(self._reader.path, self._pending.temporary)
        self.copied = True
        _LOG.info("no picture was changed: %s is a copy of %s", self.path, self._reader.path)

    def _close(self) -> None:
        """Release the files; an error in closing does not matter for a file that is thrown away or closed already."""
        if self._audio is not None:
            self._audio.close()
        if self._output is not None:
            with suppress(OSError, av.FFmpegError):
                self._output.close()

    def _discard(self) -> None:
        self._close()
        self._pending.discard()


@contextmanager
def _writing(path: Path) -> Iterator[None]:
    """Turn what FFmpeg reports while encoding and muxing into a one-line ``MediaError``."""
    try:
        with os_errors(path):
            yield
    except av.FFmpegError as error:
        raise MediaError(
            f"cannot write {path}: the encoder or container refused ({error.strerror}); try another suffix, e.g. .mkv"
        ) from error
