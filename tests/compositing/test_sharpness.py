"""A large face that the camera shows sharply is left alone; a blurred or noisy one is not."""

from __future__ import annotations

import cv2
import numpy as np
import pytest

from idm_rt.compositing import CompositeOptions, composite
from idm_rt.compositing.sharpness import detail_above_crop, sharpness_fade
from idm_rt.geometry import crop_face

SIZE = 640
TWICE = np.array([[0.45, 0, -20.0], [0, 0.45, -20.0]])  # a face 2.2 times as large as its crop
OPTIONS = CompositeOptions()


def picture(plain_from: int = 310) -> np.ndarray:
    """Blobs with sharp edges (lashes, brows) around the eyes, plain cheeks below them."""
    noise = np.random.default_rng(4).normal(0, 1, (60, 60)).astype(np.float32)
    blobs = np.sign(cv2.resize(noise, (SIZE, SIZE), interpolation=cv2.INTER_CUBIC))
    fade = np.clip((np.arange(SIZE)[:, None] - plain_from) / 10.0, 0, 1).astype(np.float32)
    image = cv2.GaussianBlur(128 + 45 * blobs * (1 - fade), (0, 0), 0.6)
    return image.astype(np.uint8)[..., None].repeat(3, axis=2)


def soft(image: np.ndarray, factor: int) -> np.ndarray:
    small = cv2.resize(image, (SIZE // factor, SIZE // factor), interpolation=cv2.INTER_AREA)
    return cv2.resize(small, (SIZE, SIZE), interpolation=cv2.INTER_CUBIC)


def fade(image: np.ndarray, face) -> float:
    return sharpness_fade(image, face.crop, OPTIONS.sharp_oversampling, OPTIONS.sharp_detail)


def test_sharp_and_large_is_left_alone_and_soft_is_not(make_face):
    face = make_face(TWICE)
    sharp, blurry = picture(), soft(picture(), 5)
    assert detail_above_crop(sharp, face.crop) > 2 * detail_above_crop(blurry, face.crop)
    assert fade(sharp, face) == pytest.approx(0.0, abs=0.1)
    assert fade(blurry, face) == 1.0


def test_noise_is_not_taken_for_detail(make_face):
    face = make_face(TWICE)
    noisy = np.clip(soft(picture(), 5) + np.random.default_rng(0).normal(0, 6, (SIZE, SIZE, 1)), 0, 255).astype(
        np.uint8
    )
    assert fade(noisy, face) > 0.7


def test_a_face_that_fits_its_crop_is_never_held_back(make_face):
    face = make_face(np.array([[1.0, 0, -100], [0, 1.0, -150]]))
    assert fade(picture(), face) == 1.0


def test_the_fade_has_no_step_as_the_face_grows(make_face):
    image = picture(plain_from=235)
    scales = np.geomspace(1.1, 0.4, 60)  # about the middle of the eyes, at frame px (320, 220)
    fades = [fade(image, make_face(np.array([[s, 0, 127.5 - s * 320], [0, s, 107 - s * 220]]))) for s in scales]
    assert fades[0] == 1.0 and fades[-1] < 0.1
    assert np.abs(np.diff(fades)).max() < 0.15


def test_the_frame_of_a_sharp_large_face_comes_back_untouched(make_face):
    correction = np.random.default_rng(1).uniform(-30, 30, (256, 256, 3))
    sharp, blurry = picture(), soft(picture(), 5)
    options = CompositeOptions(sharp_detail=(0.05, 0.1))
    for image, touched in ((sharp, False), (blurry, True)):
        face = make_face(TWICE, correction, crop_face(image, TWICE))
        assert (composite(image, [face], 1.0, options) is not image) == touched


def test_an_eye_outside_the_frame_is_no_error(make_face):
    face = make_face(np.array([[0.45, 0, 120.0], [0, 0.45, 120.0]]))
    assert 0.0 <= fade(picture(), face) <= 1.0
    assert fade(np.zeros((3, 3, 3), np.uint8), face) == 1.0
