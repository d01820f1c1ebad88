"""Uncompressed pictures into a file, a named pipe or standard output: Y4M with a header, or bare I420 or RGB."""

from __future__ import annotations

import errno
import logging
import os
import sys
from contextlib import suppress
from fractions import Fraction
from pathlib import Path
from typing import BinaryIO

import cv2
import numpy as np

from idm_rt.errors import ConfigError
from idm_rt.media.files import PendingFile, os_errors
from idm_rt.types import RgbImage
from idm_rt.virtual_camera.sinks import OutputEnded

log = logging.getLogger(__name__)

RAW_FORMATS = ("y4m", "i420", "rgb24")
RAW_SUFFIXES = {".y4m": "y4m", ".yuv": "i420", ".rgb": "rgb24"}


class RawFormat:
    """How a picture becomes bytes."""

    def __init__(self, name: str, size: tuple[int, int], fps: float) -> None:
        """``name``: one of ``RAW_FORMATS``; ``size``: (width, height) px, even."""
        if name not in RAW_FORMATS:
            raise ConfigError(f"the raw format is {name!r}; choose one of {', '.join(RAW_FORMATS)}")
        rate = Fraction(fps).limit_denominator(1001)
        self._name = name
        self.header = b""
        if name == "y4m":  # limited range; chroma is averaged over 2x2 pixels, which Y4M calls "jpeg"
            self.header = (
                f"YUV4MPEG2 W{size[0]} H{size[1]} F{rate.numerator}:{rate.denominator} "
                "Ip A1:1 C420jpeg XCOLORRANGE=LIMITED\n"
            ).encode("ascii")

    def encode(self, image: RgbImage) -> bytes:
        """The bytes of one (H, W, 3) uint8 RGB picture."""
        if self._name == "rgb24":
            return image.tobytes()
        planes = np.asarray(cv2.cvtColor(image, cv2.COLOR_RGB2YUV_I420)).tobytes()
        return b"FRAME\n" + planes if self._name == "y4m" else planes


class RawFileSink:
    """An ordinary file; it appears under its name when it is closed."""

    def __init__(self, path: Path, form: RawFormat) -> None:
        """Open it.

        Raises:
            MediaError: it cannot be written.
        """
        self.name, self._path, self._form = str(path), path, form
        self._pending = PendingFile(path)
        with os_errors(path):
            self._file: BinaryIO | None = self._pending.temporary.open("xb")
            self._file.write(form.header)

    def write(self, image: RgbImage, tick: int, count: int) -> None:
        """See ``Sink``; every tick is stored, so that the file plays at its rate."""
        assert self._file is not None, "the file is closed"
        data = self._form.encode(image)
        with os_errors(self._path):
            for _ in range(count):
                self._file.write(data)

    def close(self) -> None:
        """See ``Sink``."""
        file, self._file = self._file, None
        if file is None:
            return
        try:
            with os_errors(self._path):
                file.close()
            self._pending.commit()
        finally:
            self._pending.discard()


class PipeSink:
    """A named pipe or standard output whose reader may be slow, absent or come back: it never holds up the camera.

    Nothing queues up: while a picture is on its way, newer ones are passed over. A new reader of a named pipe gets a
    new header. POSIX only.
    """

    def __init__(self, path: Path | None, form: RawFormat) -> None:
        """``path``: a named pipe; None = standard output."""
        self._path, self._form = path, form
        self.name = "standard output" if path is None else f"the pipe {path}"
        self._fd: int | None = None
        self._left = memoryview(b"")  # of the picture on its way
        self._was_blocking: bool | None = None
        self.passed_over = 0  # pictures that found the reader busy
        if path is None:
            self._fd = os.dup(sys.stdout.fileno())
            self._was_blocking = os.get_blocking(self._fd)
            os.set_blocking(self._fd, False)
            self._left = memoryview(form.header)

    def write(self, image: RgbImage, tick: int, count: int) -> None:
        """See ``Sink``; the picture is passed over if the reader is not there, or busy with an earlier one.

        Raises:
            OutputEnded: the reader of standard output is gone.
        """
        if self._fd is None and not self._find_reader():
            return
        try:
            self._flush()
            if self._left:
                self.passed_over += 1
                return
            self._left = memoryview(self._form.encode(image))
            self._flush()
        except BrokenPipeError:
            self._reader_left()

    def close(self) -> None:
        """See ``Sink``. A picture that the reader has taken half of is cut."""
        self._left = memoryview(b"")
        if self._fd is None:
            return
        if self._was_blocking is not None:
            with suppress(OSError):
                os.set_blocking(self._fd, self._was_blocking)
        os.close(self._fd)
        self._fd = None

    def _flush(self) -> None:
        """Write what the pipe takes now."""
        assert self._fd is not None
        while self._left:
            try:
                written = os.write(self._fd, self._left)
            except BlockingIOError:
                return
            self._left = self._left[written:]

    def _find_reader(self) -> bool:
        assert self._path is not None
        try:
            self._fd = os.open(self._path, os.O_WRONLY | os.O_NONBLOCK)
        except OSError as error:
            if error.errno == errno.ENXIO:  # nobody reads it yet
                return False
            with os_errors(self._path):
                raise
        self._left = memoryview(self._form.header)
        return True

    def _reader_left(self) -> None:
        if self._path is None:
            raise OutputEnded("the reader of standard output is gone")
        log.warning("the reader of %s is gone; waiting for another", self.name)
        self.close()
