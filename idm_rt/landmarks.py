"""Index sets of the 478-point face mesh (MediaPipe Face Mesh topology) used by this project."""

from __future__ import annotations

import numpy as np

from idm_rt.types import FloatArray

NUM_LANDMARKS = 478

# "Left" and "right" are the viewer's: the left eye has the smaller x in a frontal, unmirrored picture.
LEFT_EYE = (33, 246, 161, 160, 159, 158, 157, 173, 133, 155, 154, 153, 145, 144, 163, 7)
RIGHT_EYE = (263, 466, 388, 387, 386, 385, 384, 398, 362, 382, 381, 380, 374, 373, 390, 249)
NOSE_TIP = 4
LEFT_MOUTH_CORNER = 61
RIGHT_MOUTH_CORNER = 291
FACE_OVAL = (
    *(10, 338, 297, 332, 284, 251, 389, 356, 454, 323, 361, 288, 397, 365, 379, 378, 400, 377),
    *(152, 148, 176, 149, 150, 136, 172, 58, 132, 93, 234, 127, 162, 21, 54, 103, 67, 109),
)


def five_points(landmarks_xy: FloatArray) -> FloatArray:
    """Left eye, right eye, nose tip, left and right mouth corner: (478, 2) -> (5, 2).

    An eye is the mean of its sixteen contour points, which moves far less than any single point does.

    Raises:
        ValueError: not 478 points.
    """
    if landmarks_xy.shape != (NUM_LANDMARKS, 2):
        raise ValueError(f"expected {NUM_LANDMARKS} landmarks (478, 2), found {landmarks_xy.shape}")
    return np.stack(
        [
            landmarks_xy[list(LEFT_EYE)].mean(axis=0),
            landmarks_xy[list(RIGHT_EYE)].mean(axis=0),
            landmarks_xy[NOSE_TIP],
            landmarks_xy[LEFT_MOUTH_CORNER],
            landmarks_xy[RIGHT_MOUTH_CORNER],
        ]
    )
