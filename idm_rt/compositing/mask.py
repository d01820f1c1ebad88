"""The soft mask of a face in its crop, drawn from the landmarks."""

from __future__ import annotations

from functools import lru_cache

import cv2
import numpy as np

from idm_rt.compositing.options import CompositeOptions
from idm_rt.geometry import transform_points
from idm_rt.landmarks import FACE_OVAL
from idm_rt.types import FaceCrop, FloatArray

MASK_SIZE = 64  # px side of the grid on which masks are drawn; 16 times cheaper than at 256, as smooth once enlarged
_SUBPIXEL_BITS = 4

FloatMap = np.ndarray  # float32; cv2 types its results no closer


def soft_mask(crop: FaceCrop, options: CompositeOptions) -> FloatMap:
    """(MASK_SIZE, MASK_SIZE) float32, 0..1: 1 well inside the face, 0 outside and at the crop's border.

    The face oval, raised to the hair line, softened inwards rather than outwards: background and hair behind the
    contour get at most a faint share.
    """
    oval = face_outline(crop, options.forehead)
    hull = cv2.convexHull((oval * 2**_SUBPIXEL_BITS).round().astype(np.int32))
    filled = np.zeros((MASK_SIZE, MASK_SIZE), np.uint8)
    cv2.fillConvexPoly(filled, hull, 255, lineType=cv2.LINE_AA, shift=_SUBPIXEL_BITS)
    blurred = cv2.GaussianBlur(filled.astype(np.float32) / 255.0, (0, 0), options.feather * MASK_SIZE)
    # The blurred edge is 0.5 on the contour; 0.3 -> 0 and 0.9 -> 1 move the soft band inwards.
    ramp = np.clip((blurred - np.float32(0.3)) / np.float32(0.6), 0.0, 1.0)
    return ramp * ramp * (3.0 - 2.0 * ramp) * _border_fade()


def face_outline(crop: FaceCrop, forehead: float) -> FloatArray:
    """The face oval on the mask's grid, (36, 2); its upper half is stretched upwards by ``forehead``."""
    size = crop.image.shape[0]
    points = transform_points(crop.frame_to_crop, crop.track.landmarks_xy[list(FACE_OVAL)])
    points = (points + 0.5) * (MASK_SIZE / size) - 0.5
    top, bottom = points[:, 1].min(), points[:, 1].max()
    height = max(bottom - top, 1e-6)
    rise = np.clip(1.0 - 2.0 * (points[:, 1] - top) / height, 0.0, 1.0)  # 1 at the top, 0 from the middle down
    raised = np.column_stack([points[:, 0], points[:, 1] - forehead * height * rise])
    return np.clip(raised, -MASK_SIZE, 2 * MASK_SIZE)  # keeps a wild outline within the fixed-point range


@lru_cache(maxsize=1)
def _border_fade() -> FloatMap:
    """0 on the outermost two cells, 1 from a tenth of the side inwards, so that a crop never ends in a hard line."""
    distance = np.minimum(np.arange(MASK_SIZE), np.arange(MASK_SIZE)[::-1]).astype(np.float32)
    ramp = np.clip((distance - 1.0) / (0.1 * MASK_SIZE), 0.0, 1.0)
    fade = np.minimum.outer(ramp, ramp).astype(np.float32)
    fade.setflags(write=False)
    return fade
