"""Crops of a textured scene with known motion, and corrections with known flicker."""

from __future__ import annotations

from collections.abc import Callable

import cv2
import numpy as np
import pytest

from idm_rt.types import FaceCrop, FaceTrack, RestoredFace

SIZE = 256
STRAIGHT = np.array([[1.0, 0, 0], [0, 1.0, 0]])


def band_noise(rng: np.random.Generator, rms: float, size: int = SIZE) -> np.ndarray:
    """(size, size, 3) float32 noise between one and four px, the band in which restored detail lies."""
    noise = rng.normal(size=(size, size, 3)).astype(np.float32)
    band = cv2.GaussianBlur(noise, (0, 0), 1.0) - cv2.GaussianBlur(noise, (0, 0), 4.0)
    return band * np.float32(rms / band.std())


def texture(seed: int, size: int = SIZE + 128) -> np.ndarray:
    """A face-like spectrum: strong broad structure, some detail. (size, size, 3) uint8."""
    rng = np.random.default_rng(seed)
    image = np.full((size, size, 1), 128, np.float32)
    for cells in (5, 10, 20, 40, 80):
        noise = rng.normal(size=(cells, cells)).astype(np.float32)
        image += 25 * (5 / cells) ** 0.5 * cv2.resize(noise, (size, size), interpolation=cv2.INTER_CUBIC)[..., None]
    return np.clip(image, 0, 255).astype(np.uint8).repeat(3, axis=2)


def restored(image: np.ndarray, correction: np.ndarray, track_id: int = 1, confidence: float = 1.0) -> RestoredFace:
    points = np.random.default_rng(0).uniform(60, 200, (478, 2))
    box = np.array([60.0, 60.0, 200.0, 200.0])
    track = FaceTrack(track_id, box, points, score=1.0, yaw_deg=0.0, pitch_deg=0.0, age=10)
    return RestoredFace(FaceCrop(track, image, STRAIGHT), correction.astype(np.float32, copy=False), confidence)


@pytest.fixture(scope="session")
def make_restored() -> Callable[..., RestoredFace]:
    return restored


@pytest.fixture(scope="session")
def make_texture() -> Callable[..., np.ndarray]:
    return texture


@pytest.fixture(scope="session")
def make_band_noise() -> Callable[..., np.ndarray]:
    return band_noise
