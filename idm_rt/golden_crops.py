"""Four faces that ship with the package, on which an engine is compared with the reference."""

from __future__ import annotations

from itertools import islice

import cv2
import numpy as np
from numpy.typing import NDArray

from idm_rt.media.video_reader import VideoReader
from idm_rt.sample_clip import sample_clip

_EVERY = 25  # frames of the sample call between two of the faces: its pose and its artefacts differ by then
_BOX = (200, 73, 440, 313)  # x0, y0, x1, y1 px: about the aligned crop, in every frame of the sample
COUNT = 4


def golden_crops(size: int) -> NDArray[np.uint8]:
    """(4, size, size, 3) uint8 RGB from the sample call, always the same. No tracker, so no fetched file, is needed.

    Raises:
        MediaError: the sample is not installed or cannot be read.
    """
    x0, y0, x1, y1 = _BOX
    with VideoReader(sample_clip()) as reader:
        frames = [frame.image for frame in islice(reader, 0, COUNT * _EVERY, _EVERY)]
    crops = [cv2.resize(image[y0:y1, x0:x1], (size, size), interpolation=cv2.INTER_AREA) for image in frames]
    return np.stack([np.asarray(crop, np.uint8) for crop in crops])
