"""The frames of a benchmark: a clip in a loop, on a canvas of any size, its face once or several times."""

from __future__ import annotations

import math
from collections.abc import Iterator
from pathlib import Path
from types import TracebackType
from typing import Self

import cv2
import numpy as np

from idm_rt.errors import ConfigError
from idm_rt.media.video_reader import VideoReader
from idm_rt.types import RgbImage

_DEFAULT_RATE = 30.0


class ClipFrames:
    """Decode a clip again and again; frames are made one by one, so that memory does not depend on its length.

    Each of ``copies`` equal tiles of the frame shows the clip in its middle: at its own size where it fits (so that a
    larger frame does not mean a larger face), else shrunk to fit; never enlarged. What is left of a tile repeats the
    clip's outermost pixels.

    Args:
        size: (width, height) px of the frames; None = the clip's.

    Raises:
        MediaError: on entering: the clip cannot be read.
        ConfigError: on entering: the size has no room for so many copies.
    """

    def __init__(self, path: Path, size: tuple[int, int] | None = None, copies: int = 1) -> None:
        self._path, self._wanted, self._copies = path, size, copies

    def __enter__(self) -> Self:
        with VideoReader(self._path) as reader:
            clip_size = reader.info.upright_size
            self.interval_ms = 1000.0 / float(reader.info.average_rate or _DEFAULT_RATE)
        self.size = self._wanted or clip_size
        self._tiles = tile_boxes(self.size, self._copies)
        x0, y0, x1, y1 = self._tiles[0]
        self.scale = min(1.0, (x1 - x0) / clip_size[0], (y1 - y0) / clip_size[1])
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        """Nothing is held open between two frames' clips."""

    def take(self, count: int) -> Iterator[RgbImage]:
        """``count`` frames, (H, W, 3)."""
        left = count
        while left > 0:
            with VideoReader(self._path) as reader:
                for frame in reader:
                    yield self._compose(frame.image)
                    left -= 1
                    if left == 0:
                        return

    def _compose(self, picture: RgbImage) -> RgbImage:
        width, height = self.size
        if picture.shape[:2] == (height, width) and self._copies == 1:
            return picture
        canvas = np.empty((height, width, 3), np.uint8)
        for box in self._tiles:
            x0, y0, x1, y1 = box
            canvas[y0:y1, x0:x1] = place(picture, (x1 - x0, y1 - y0), self.scale)
        return canvas


def tile_boxes(size: tuple[int, int], count: int) -> list[tuple[int, int, int, int]]:
    """``count`` equal rectangles (x0, y0, x1, y1) px that share a frame, in rows from the upper left.

    Raises:
        ConfigError: a tile would be smaller than 16 px.
    """
    width, height = size
    columns = math.ceil(math.sqrt(count * width / height)) if count > 1 else 1
    columns = min(columns, count)
    rows = math.ceil(count / columns)
    w, h = width // columns, height // rows
    if min(w, h) < 16:
        raise ConfigError(f"{width}x{height} px have no room for {count} faces; choose a larger size or fewer faces")
    if count == 1:
        return [(0, 0, width, height)]
    edges = [divmod(index, columns) for index in range(columns * rows)]
    return [
        (c * w, r * h, width if c == columns - 1 else c * w + w, height if r == rows - 1 else r * h + h)
        for r, c in edges
    ][:count]


def place(picture: RgbImage, size: tuple[int, int], scale: float) -> RgbImage:
    """The picture, scaled, in the middle of a (width, height) tile whose rest repeats the outermost pixels."""
    if scale < 1.0:
        height, width = (max(1, math.floor(side * scale)) for side in picture.shape[:2])
        picture = np.asarray(cv2.resize(picture, (width, height), interpolation=cv2.INTER_AREA), dtype=np.uint8)
    right, below = size[0] - picture.shape[1], size[1] - picture.shape[0]
    left, above = right // 2, below // 2
    bordered = cv2.copyMakeBorder(picture, above, below - above, left, right - left, cv2.BORDER_REPLICATE)
    return np.asarray(bordered, dtype=np.uint8)
