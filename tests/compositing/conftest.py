"""A face of known shape: an ellipse of landmarks in the aligned crop, moved into a frame by any similarity."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

from idm_rt.geometry import ALIGN_TEMPLATE, invert_affine, transform_points
from idm_rt.landmarks import (
    FACE_OVAL,
    LEFT_EYE,
    LEFT_MOUTH_CORNER,
    NOSE_TIP,
    NUM_LANDMARKS,
    RIGHT_EYE,
    RIGHT_MOUTH_CORNER,
)
from idm_rt.types import FaceCrop, FaceTrack, RestoredFace

CROP = 256


def crop_landmarks() -> np.ndarray:
    """(478, 2) in crop px: the oval as an ellipse, eyes as circles, everything else on the nose."""
    five = ALIGN_TEMPLATE * CROP - 0.5
    points = np.tile(five[2], (NUM_LANDMARKS, 1))
    turn = np.linspace(0.0, 2.0 * np.pi, len(FACE_OVAL), endpoint=False)
    points[list(FACE_OVAL)] = np.column_stack([127.5 + 72.0 * np.sin(turn), 140.0 - 92.0 * np.cos(turn)])
    for eye, centre in ((LEFT_EYE, five[0]), (RIGHT_EYE, five[1])):
        turn = np.linspace(0.0, 2.0 * np.pi, len(eye), endpoint=False)
        points[list(eye)] = centre + np.column_stack([12.0 * np.cos(turn), 5.0 * np.sin(turn)])
    points[NOSE_TIP], points[LEFT_MOUTH_CORNER], points[RIGHT_MOUTH_CORNER] = five[2:]
    points[50], points[280] = five[0] + (-8.0, 45.0), five[1] + (8.0, 45.0)
    return points


def face(
    frame_to_crop: np.ndarray,
    correction: np.ndarray | float = 20.0,
    crop_image: np.ndarray | None = None,
    track_id: int = 1,
    confidence: float = 1.0,
    **track: float,
) -> RestoredFace:
    """A restored face whose landmarks are ``crop_landmarks`` seen through ``frame_to_crop``."""
    points = transform_points(invert_affine(frame_to_crop), crop_landmarks())
    box = np.concatenate([points.min(axis=0), points.max(axis=0)])
    values = {"score": 1.0, "yaw_deg": 0.0, "pitch_deg": 0.0, "age": 100, **track}
    record = FaceTrack(track_id, box, points, values["score"], values["yaw_deg"], values["pitch_deg"], values["age"])
    if crop_image is None:
        crop_image = np.full((CROP, CROP, 3), 128, np.uint8)
    delta = np.broadcast_to(np.float32(correction), (CROP, CROP, 3)).copy()
    return RestoredFace(FaceCrop(record, crop_image, frame_to_crop), delta, confidence)


@pytest.fixture(scope="session")
def make_face() -> Callable[..., RestoredFace]:
    return face
