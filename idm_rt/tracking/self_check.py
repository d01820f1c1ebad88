"""Do two nets see a face that is known to be there? Asked of compiled nets before anything depends on them.

The face is drawn, so where its eyes and mouth lie is known without any other net. A wrong file, input range, order of
channels or outputs, or a precision too coarse for landmarks all fail here.
"""

from __future__ import annotations

import numpy as np

from idm_rt.errors import EngineError
from idm_rt.landmarks import five_points
from idm_rt.tracking.face_search import BoxDetector, MeshDetector, mesh_in_box
from idm_rt.tracking.records import FaceBox
from idm_rt.types import FloatArray, RgbImage

_SIZE = 256  # px: side of the drawn picture
_SKIN_RGB = (1.0, 0.8, 0.7)  # per unit of brightness
_EYES_AND_MOUTH = np.array([[98.0, 108.0], [158.0, 108.0], [128.0, 178.0]])  # px
_TOLERANCE = 6.0  # px: mediapipe's own mesh of the drawing is at most 1.5 off, OpenVINO's 1.7


def drawn_face() -> RgbImage:
    """(256, 256, 3): a face as simple as both nets still take for one."""
    y, x = np.mgrid[0:_SIZE, 0:_SIZE].astype(np.float64)

    def spot(centre_xy: FloatArray, half_width: float, half_height: float, softness: float = 1.5) -> FloatArray:
        radius = np.hypot((x - centre_xy[0]) / half_width, (y - centre_xy[1]) / half_height)
        return np.clip(softness * (1.0 - radius), 0.0, 1.0)

    left_eye, right_eye, mouth = _EYES_AND_MOUTH
    brightness = 70.0 + 130.0 * spot(np.array([128.0, 128.0]), 72.0, 95.0, softness=4.0)
    for eye in (left_eye, right_eye):
        brightness -= 110.0 * spot(eye, 16.0, 8.0) + 60.0 * spot(eye - [0.0, 18.0], 24.0, 6.0)
    brightness -= 45.0 * spot((left_eye + right_eye) / 2.0 + [0.0, 37.0], 14.0, 10.0)
    brightness -= 90.0 * spot(mouth, 30.0, 10.0)
    return np.clip(brightness[..., None] * _SKIN_RGB, 0, 255).astype(np.uint8)


def check_nets(detector: BoxDetector, mesh: MeshDetector) -> None:
    """Show both nets the drawn face, then nothing at all.

    Raises:
        EngineError: what they see is not what is there.
    """
    picture = drawn_face()
    blank = np.full_like(picture, 100)
    boxes = detector.detect(picture)
    if len(boxes) != 1 or detector.detect(blank):
        raise EngineError(f"the face detector sees {len(boxes)} faces in a drawing of one; expected 1, and 0 in none")
    face = mesh_in_box(picture, boxes[0], mesh)
    if face is None or mesh_in_box(blank, FaceBox(boxes[0].box_xyxy), mesh) is not None:
        raise EngineError("the face mesh net does not tell a drawn face from an empty picture")
    left_eye, right_eye, _, left_mouth, right_mouth = five_points(face.landmarks_xy)
    found = np.stack([left_eye, right_eye, (left_mouth + right_mouth) / 2.0])
    error = float(np.abs(found - _EYES_AND_MOUTH).max())
    if not error <= _TOLERANCE:
        raise EngineError(f"the face mesh lies {error:.1f} px beside a drawn face; expected at most {_TOLERANCE:.0f}")
