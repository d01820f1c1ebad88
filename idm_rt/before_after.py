"""A still before/after picture, collected while pictures pass by: bounded memory, even spread over all of them."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import cv2
import numpy as np
from PIL import Image

from idm_rt.media.compare import contact_sheet, enclosing_box
from idm_rt.media.files import check_output, os_errors, replacing
from idm_rt.media.photo import photo_format
from idm_rt.types import FloatArray, RgbImage

ROWS = 3
_KEPT = 4 * ROWS  # pairs in memory, at most; half as many at least, so that rows rarely show the very first picture
_ROW_HEIGHT = 480  # px; larger pictures are reduced to it when they are kept


class BeforeAfter:
    """Keeps a few pairs of the pictures it is shown, those with faces, cut to the faces.

    How many pictures will come need not be known: every ``stride``-th one with a face is kept, and when too many are
    kept every second one is dropped and the stride doubled.
    """

    def __init__(self, rows: int = ROWS, margin: float = 0.5) -> None:
        """``margin``: room around the faces, as a part of their size."""
        self.pairs: list[tuple[RgbImage, RgbImage]] = []
        self._rows, self._margin = rows, margin
        self._stride = 1
        self._seen = 0  # pictures with a face
        self._any_face = False

    def add(self, before: RgbImage, after: RgbImage, boxes_xyxy: Sequence[FloatArray]) -> None:
        """Look at a picture and its result.

        Args:
            before, after: (H, W, 3) of equal size; parts of them are copied.
            boxes_xyxy: (4,) px of each face; may be empty.
        """
        box = enclosing_box([box.tolist() for box in boxes_xyxy], before.shape[:2], self._margin)
        if box is None and (self._any_face or self.pairs):
            return
        if box is not None and not self._any_face:  # a picture without a face was only a stand-in
            self._any_face, self.pairs = True, []
        if self._seen % self._stride == 0:
            self.pairs.append((_cut(before, box), _cut(after, box)))
        self._seen += box is not None
        if len(self.pairs) > _KEPT:
            self.pairs, self._stride = self.pairs[::2], self._stride * 2

    def picture(self) -> RgbImage:
        """The contact sheet.

        Raises:
            ValueError: nothing was added.
        """
        return contact_sheet(self.pairs, rows=self._rows, row_height=_ROW_HEIGHT)

    def write(self, path: Path) -> None:
        """Write the contact sheet; the file appears when it is complete and replaces one of that name.

        Raises:
            MediaError: unsupported suffix, folder missing or not writable, disk full.
        """
        name = photo_format(path)
        check_output(path, source=None, overwrite=True)
        picture = Image.fromarray(self.picture())
        with replacing(path) as temporary, os_errors(path):
            picture.save(temporary, name, quality=92)


def _cut(image: RgbImage, box: tuple[float, float, float, float] | None) -> RgbImage:
    """A copy of a square around the box, moved and cut to lie inside the picture; of everything without a box."""
    if box is None:
        return _reduced(image)
    height, width = image.shape[:2]
    x0, y0, x1, y1 = box
    side = min(max(1, round(max(x1 - x0, y1 - y0))), width, height)  # rows of one sheet look best equally wide
    left = min(max(0, round((x0 + x1 - side) / 2)), width - side)
    top = min(max(0, round((y0 + y1 - side) / 2)), height - side)
    return _reduced(image[top : top + side, left : left + side])


def _reduced(image: RgbImage) -> RgbImage:
    """A copy, at most a row high."""
    height, width = image.shape[:2]
    if height <= _ROW_HEIGHT:
        return image.copy()
    size = max(1, round(width * _ROW_HEIGHT / height)), _ROW_HEIGHT
    return np.asarray(cv2.resize(image, size, interpolation=cv2.INTER_AREA), dtype=np.uint8)
