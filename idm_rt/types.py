"""The records that pass between the stages; validated where they are made, then trusted."""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction

import numpy as np
from numpy.typing import NDArray

RgbImage = NDArray[np.uint8]  # (H, W, 3), RGB, 0..255
FloatArray = NDArray[np.floating]


def check_rgb(image: np.ndarray, name: str = "image") -> RgbImage:
    """Return ``image`` unchanged if it is (H, W, 3) uint8.

    Raises:
        ValueError: another shape; the message quotes it.
        TypeError: not a numpy array, or another dtype.
    """
    if not isinstance(image, np.ndarray):
        raise TypeError(f"{name} must be a numpy array, found {type(image).__name__}")
    if image.dtype != np.uint8:
        raise TypeError(f"{name} must be uint8 RGB (0..255), found {image.dtype}")
    if image.ndim != 3 or image.shape[2] != 3:
        raise ValueError(f"{name} must have shape (height, width, 3), found {image.shape}")
    return image


@dataclass(frozen=True, slots=True)
class Frame:
    """One picture of a stream."""

    image: RgbImage  # (H, W, 3)
    pts: int | None = None  # presentation time in units of time_base; copied through, never computed
    time_base: Fraction | None = None  # seconds per pts unit
    captured_s: float | None = None  # monotonic clock at capture, seconds

    def __post_init__(self) -> None:
        check_rgb(self.image, "frame image")


@dataclass(frozen=True, slots=True)
class FaceTrack:
    """One face in one frame, with an identity that lasts over frames."""

    track_id: int  # unique within a tracker's life, never reused
    box_xyxy: FloatArray  # (4,) px: tight box of the landmarks, may reach outside the frame
    landmarks_xy: FloatArray  # (478, 2) px, smoothed; indices as in idm_rt.landmarks
    score: float  # 0..1: how sure the tracker is that this is a visible, well-fitted face
    yaw_deg: float  # 0 = frontal, positive = the face turns to the viewer's right
    pitch_deg: float  # 0 = level, positive = the face looks up
    age: int  # frames since birth, 0 in the first

    def __post_init__(self) -> None:
        if self.box_xyxy.shape != (4,):
            raise ValueError(f"box_xyxy must have shape (4,), found {self.box_xyxy.shape}")
        if self.landmarks_xy.ndim != 2 or self.landmarks_xy.shape[1] != 2:
            raise ValueError(f"landmarks_xy must have shape (K, 2), found {self.landmarks_xy.shape}")


@dataclass(frozen=True, slots=True)
class FaceCrop:
    """An aligned face cut out of a frame."""

    track: FaceTrack
    image: RgbImage  # (S, S, 3)
    frame_to_crop: FloatArray  # (2, 3): maps frame px (x, y, 1) to crop px; pixel centres at integers


@dataclass(frozen=True, slots=True)
class RestoredFace:
    """What the restorer (and then the blender) wants to change in a crop."""

    crop: FaceCrop
    correction: NDArray[np.float32]  # (S, S, 3): restored minus crop image, in 8-bit steps, -255..255
    confidence: float = 1.0  # 0..1: how much of the correction may be shown
