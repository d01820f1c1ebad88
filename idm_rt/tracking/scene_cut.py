"""Hard cuts between shots, from small grey thumbnails.

Two measures must agree. *Unexplained*: a pixel of one thumbnail is explained when its value lies, give or take a
tolerance, within what the other holds nearby, so that motion of a few thumbnail pixels explains itself, and noise
does; exposure is matched first. *Rank correlation* of the two thumbnails: a flash that clips half of the picture
keeps the order of its grey values, another shot does not.

Measured on seven talking-head clips (512x512 and 1280x720): frames three apart of one shot have at most 0.08
unexplained and a rank correlation of 0.54 or more; of the 42 hard cuts between two of the clips the closest has 0.13
and 0.48. Portraits of one series before one backdrop can pass for the same shot; dissolves are not reported.
"""

from __future__ import annotations

import cv2
import numpy as np
from numpy.typing import NDArray

from idm_rt.types import FloatArray, RgbImage

THUMB_HW = (24, 32)
_SAMPLES = 4  # each thumbnail pixel is the mean of 4x4 sampled ones: enough to average noise and blocks away
_REACH = np.ones((5, 5), np.uint8)  # thumbnail px that things may move between two frames, two to each side
_TOLERANCE = 14.0  # 8-bit steps
_MAX_UNEXPLAINED = 0.09
_MIN_RANK_CORRELATION = 0.5
_MAX_GAIN = 3.0  # exposure changes beyond it are not undone


def thumbnail(image: RgbImage) -> NDArray[np.float32]:
    """(24, 32) mean grey values of an (H, W, 3) picture; the cost does not depend on its size."""
    height, width = THUMB_HW
    sampled = cv2.resize(image, (width * _SAMPLES, height * _SAMPLES), interpolation=cv2.INTER_NEAREST)
    grey = cv2.cvtColor(sampled, cv2.COLOR_RGB2GRAY)
    return cv2.resize(grey, (width, height), interpolation=cv2.INTER_AREA).astype(np.float32)


def unexplained_fraction(before: FloatArray, after: FloatArray) -> float:
    """Part of two thumbnails that the other cannot explain, 0 (same shot) to 1; symmetric up to the exposure fit."""
    after = _match_exposure(after.astype(np.float32), before.astype(np.float32))
    return min(_outside(before, after), _outside(after, before))


def _match_exposure(values: NDArray[np.float32], target: NDArray[np.float32]) -> NDArray[np.float32]:
    gain = float(np.clip((target.std() + 1.0) / (values.std() + 1.0), 1.0 / _MAX_GAIN, _MAX_GAIN))
    return (values - values.mean()) * np.float32(gain) + target.mean()


def _outside(reference: FloatArray, values: FloatArray) -> float:
    low = cv2.erode(reference.astype(np.float32), _REACH) - _TOLERANCE
    high = cv2.dilate(reference.astype(np.float32), _REACH) + _TOLERANCE
    return float(np.mean((values < low) | (values > high)))


def rank_correlation(before: FloatArray, after: FloatArray) -> float:
    """Spearman's rank correlation of two thumbnails, -1..1."""
    ranks = [np.argsort(np.argsort(values, axis=None)).astype(np.float64) for values in (before, after)]
    centred = [rank - rank.mean() for rank in ranks]
    return float(centred[0] @ centred[1] / (centred[0] @ centred[0]))


def is_cut(before: FloatArray, after: FloatArray) -> bool:
    """Whether two successive thumbnails belong to different shots."""
    if unexplained_fraction(before, after) <= _MAX_UNEXPLAINED:
        return False
    return rank_correlation(before, after) < _MIN_RANK_CORRELATION


class SceneCutDetector:
    """Says of each frame of a stream whether it starts a new shot."""

    def __init__(self) -> None:
        self.reset()

    def reset(self) -> None:
        """The next frame is a first frame, which is no cut."""
        self._thumb: NDArray[np.float32] | None = None
        self._frame_hw = (0, 0)

    def update(self, image: RgbImage) -> bool:
        """Whether this frame does not continue the one before; another frame size is always a cut."""
        thumb, frame_hw = thumbnail(image), (image.shape[0], image.shape[1])
        before, before_hw = self._thumb, self._frame_hw
        self._thumb, self._frame_hw = thumb, frame_hw
        if before is None:
            return False
        return frame_hw != before_hw or is_cut(before, thumb)
