from __future__ import annotations

import cv2
import numpy as np
import pytest

from idm_rt.compositing import CompositeOptions, composite
from idm_rt.compositing.mask import soft_mask
from idm_rt.compositing.tone import match_tone

OPTIONS = CompositeOptions()
STRAIGHT = np.array([[1.0, 0, 0], [0, 1.0, 0]])


def detail(seed: int = 0) -> np.ndarray:
    """Band-limited noise of 8 steps RMS: what a restorer should add."""
    noise = np.random.default_rng(seed).normal(size=(256, 256, 3)).astype(np.float32)
    band = cv2.GaussianBlur(noise, (0, 0), 1.0) - cv2.GaussianBlur(noise, (0, 0), 4.0)
    return band * (8.0 / band.std())


def ramp() -> np.ndarray:
    """A colour cast that differs by channel and falls off across the face."""
    x = np.linspace(-1, 1, 256, dtype=np.float32)[None, :, None]
    return np.float32([6.0, -4.0, 2.0]) + 3.0 * x * np.ones((256, 1, 3), np.float32)


@pytest.fixture
def mask(make_face):
    return soft_mask(make_face(STRAIGHT).crop, OPTIONS)


def masked_mean(values: np.ndarray, mask: np.ndarray) -> np.ndarray:
    weight = cv2.resize(mask, (256, 256))[..., None]
    return (values * weight).sum(axis=(0, 1)) / weight.sum()


def test_a_colour_cast_is_removed(mask):
    matched = match_tone(detail() + ramp(), mask, OPTIONS.tone_sigma)
    assert np.abs(masked_mean(ramp(), mask)).max() > 5.5
    assert np.abs(masked_mean(matched, mask)).max() < 0.1
    half = match_tone(detail() + ramp(), mask, OPTIONS.tone_sigma, 0.5)
    np.testing.assert_allclose(masked_mean(half, mask), 0.5 * masked_mean(ramp(), mask), atol=0.2)


def test_detail_is_kept(mask):
    face = cv2.resize(mask, (256, 256)) == 1.0
    for cast in (0.0, ramp()):
        matched = match_tone(detail() + cast, mask, OPTIONS.tone_sigma)
        error = (matched - detail())[face]
        assert np.sqrt(np.mean(error**2)) < (0.35 if isinstance(cast, float) else 1.2)


def test_what_happens_outside_the_mask_does_not_leak_in(mask):
    loud = detail()
    outside = cv2.resize(mask, (256, 256)) == 0.0
    loud[cv2.erode(outside.astype(np.uint8), np.ones((17, 17), np.uint8)) > 0] += 80.0
    face = cv2.resize(mask, (256, 256)) == 1.0
    leaked = match_tone(loud, mask, OPTIONS.tone_sigma) - match_tone(detail(), mask, OPTIONS.tone_sigma)
    assert np.abs(leaked[face]).max() < 1e-2


def test_share_0_changes_nothing_and_an_empty_mask_is_fine(mask):
    correction = detail()
    assert match_tone(correction, mask, 0.2, 0.0) is correction
    assert np.isfinite(match_tone(correction, np.zeros_like(mask), 0.2)).all()


def test_the_frame_keeps_its_colour(make_face):
    """End to end: a restorer that warms every face by six steps does not warm the face in the frame."""
    image = np.full((300, 300, 3), (150, 120, 100), np.uint8)
    face = make_face(np.array([[1.0, 0, -20], [0, 1.0, -20]]), detail() + ramp(), image[:256, :256])
    inner = (slice(100, 220), slice(95, 200))
    options = CompositeOptions(evidence_floor=1e6)  # a flat crop holds no evidence for any detail
    shift = composite(image, [face], 1.0, options)[inner].astype(float).mean(axis=(0, 1)) - (150, 120, 100)
    assert np.abs(shift).max() < 0.5
