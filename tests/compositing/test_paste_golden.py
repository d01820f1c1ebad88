"""Exact results of pasting a known correction through known similarities, computed here with plain numpy."""

from __future__ import annotations

import numpy as np
import pytest

from idm_rt.compositing import CompositeOptions, composite
from idm_rt.compositing.mask import MASK_SIZE, soft_mask
from idm_rt.compositing.paste import add_patches

# Every gate but the mask opened, so that the expected pixels can be written down.
PLAIN = CompositeOptions(tone_share=0.0, evidence_floor=1e6, sharp_detail=(1e6, 2e6), min_face_px=0.0)


def enlarge(mask: np.ndarray, size: int) -> np.ndarray:
    """Bilinear, pixel centres aligned, edges replicated: the textbook formula, one axis at a time."""
    position = (np.arange(size) + 0.5) * (mask.shape[0] / size) - 0.5
    low = np.floor(position).astype(int)
    part = position - low
    a, b = np.clip(low, 0, mask.shape[0] - 1), np.clip(low + 1, 0, mask.shape[0] - 1)
    rows = mask[a] * (1 - part)[:, None] + mask[b] * part[:, None]
    return rows[:, a] * (1 - part) + rows[:, b] * part


def expected(image: np.ndarray, delta_in_frame: np.ndarray) -> np.ndarray:
    return np.clip(image + np.rint(delta_in_frame), 0, 255).astype(np.uint8)


def assert_equal_but_ties(found: np.ndarray, image: np.ndarray, delta: np.ndarray) -> None:
    """Equal everywhere, except where float noise decides which way an exact half is rounded."""
    tie = np.abs(delta - np.floor(delta) - 0.5) < 2e-3
    np.testing.assert_array_equal(np.where(tie, 0, found), np.where(tie, 0, expected(image, delta)))
    assert tie.mean() < 0.05
    assert np.any(found != image)


@pytest.fixture
def scene(make_face):
    rng = np.random.default_rng(3)
    return rng.integers(0, 256, (400, 420, 3), np.uint8), rng.uniform(-40, 40, (256, 256, 3)).astype(np.float32)


def weighted(face, correction, strength: float) -> np.ndarray:
    return correction * (enlarge(soft_mask(face.crop, PLAIN).astype(float), 256) * strength)[..., None]


@pytest.mark.parametrize(("dx", "dy"), [(60, 70), (-40, -30), (300, 310), (-400, 0)])
@pytest.mark.parametrize("strength", [1.0, 0.25])
def test_a_shift_adds_the_masked_correction_pixel_by_pixel(make_face, scene, dx, dy, strength):
    image, correction = scene
    face = make_face(np.array([[1.0, 0, -dx], [0, 1.0, -dy]]), correction)
    options = CompositeOptions(**{**_fields(PLAIN), "inside_fade": (-2.0, -1.0)})  # off-frame faces count in full
    delta = np.zeros(image.shape)
    small = weighted(face, correction, strength)
    y0, y1, x0, x1 = max(0, dy), min(400, dy + 256), max(0, dx), min(420, dx + 256)
    found = composite(image, [face], strength, options)
    if x0 >= x1 or y0 >= y1:
        assert found is image
        return
    delta[y0:y1, x0:x1] = small[y0 - dy : y1 - dy, x0 - dx : x1 - dx]
    assert_equal_but_ties(found, image, delta)


def test_a_quarter_turn_moves_every_pixel_to_its_place(make_face, scene):
    image, correction = scene
    # crop x = frame y - 40, crop y = 300 - frame x
    face = make_face(np.array([[0.0, 1.0, -40.0], [-1.0, 0.0, 300.0]]), correction)
    delta = np.zeros(image.shape)
    small = weighted(face, correction, 1.0)
    for y in range(40, 296):
        delta[y, 300 - np.arange(256)] = small[:, y - 40]
    assert_equal_but_ties(composite(image, [face], 1.0, PLAIN), image, delta)


def test_a_face_half_as_large_as_its_crop_gets_block_means(make_face, scene):
    image, correction = scene
    # Frame px (X, Y) is the mean of crop px 2(X - 100) .. + 1, so its centre is at 2(X - 100) + 0.5.
    face = make_face(np.array([[2.0, 0, -199.5], [0, 2.0, -179.5]]), correction)
    delta = np.zeros(image.shape)
    blocks = weighted(face, correction, 1.0).reshape(128, 2, 128, 2, 3).mean(axis=(1, 3))
    delta[90:218, 100:228] = blocks
    assert_equal_but_ties(composite(image, [face], 1.0, PLAIN), image, delta)


def test_a_face_twice_as_large_as_its_crop_is_interpolated(make_face, scene):
    image, correction = scene
    face = make_face(np.array([[0.5, 0, 30.0 - 0.25], [0, 0.5, 40.0 - 0.25]]), correction)
    small = weighted(face, correction, 1.0)
    rows, columns = 0.5 * np.arange(400) + 39.75, 0.5 * np.arange(420) + 29.75
    r, c = np.floor(rows).astype(int), np.floor(columns).astype(int)
    u, v = (rows - r)[:, None, None], (columns - c)[None, :, None]
    delta = (
        small[r][:, c] * (1 - u) * (1 - v)
        + small[r][:, c + 1] * (1 - u) * v
        + small[r + 1][:, c] * u * (1 - v)
        + small[r + 1][:, c + 1] * u * v
    )
    assert_equal_but_ties(composite(image, [face], 1.0, PLAIN), image, delta)


@pytest.mark.parametrize(("level", "correction"), [(250, 90.0), (5, -90.0)])
def test_values_are_held_at_black_and_white_and_never_wrap(make_face, level, correction):
    image = np.full((300, 300, 3), level, np.uint8)
    out = composite(image, [make_face(np.array([[1.0, 0, -20], [0, 1.0, -20]]), correction)], 1.0, PLAIN)
    if correction > 0:
        assert out.min() == level and out.max() == 255
    else:
        assert out.max() == level and out.min() == 0


def test_rounding_has_no_bias(make_face):
    """A zero-mean correction of a fraction of a step leaves the mean where it was."""
    rng = np.random.default_rng(0)
    image = rng.integers(60, 200, (300, 300, 3), np.uint8)
    correction = rng.uniform(-2.5, 2.5, (256, 256, 3)).astype(np.float32)
    correction -= correction.mean()
    matrix = np.array([[1.0, 0, -20], [0, 1.0, -20]])
    out = composite(image, [make_face(matrix, correction)], 1.0, PLAIN)
    inner = (slice(120, 200), slice(110, 190))
    shown = out[inner].astype(float) - image[inner]
    wanted = correction[100:180, 90:170]
    assert abs(shown.mean() - wanted.mean()) < 0.01
    assert np.abs(shown - wanted).max() <= 0.5 + 1e-3


def test_exact_halves_balance():
    """OpenCV 5.0 rounds the step to even, 5.1 the pixel: by either, as many go up as down."""
    image = np.full((1, 8, 3), 101, np.uint8)
    halves = np.array([-3.5, -2.5, -1.5, -0.5, 0.5, 1.5, 2.5, 3.5], np.float32)[None, :, None].repeat(3, axis=2)
    out = add_patches(image, [(0, 0, 8, 1)], [halves]).astype(int) - 101
    assert (np.abs(out - halves) == 0.5).all()
    assert out.sum() == 0


def test_strength_is_a_multiplication_and_zero_returns_the_input(make_face, scene):
    image, correction = scene
    face = make_face(np.array([[0.9, 0.1, -20], [-0.1, 0.9, 15]]), correction)
    assert composite(image, [face], 0.0) is image
    grey = np.full_like(image, 128)
    shown = [np.abs(composite(grey, [face], s, PLAIN).astype(int) - 128).sum() for s in (0.0, 0.2, 0.5, 0.8, 1.0)]
    assert shown == sorted(shown) and shown[0] == 0
    assert shown[2] / shown[4] == pytest.approx(0.5, abs=0.02)


def test_confidence_weighs_like_strength(make_face, scene):
    image, correction = scene
    matrix = np.array([[0.9, 0.1, -20], [-0.1, 0.9, 15]])
    by_confidence = composite(image, [make_face(matrix, correction, confidence=0.5)], 1.0, PLAIN)
    np.testing.assert_array_equal(by_confidence, composite(image, [make_face(matrix, correction)], 0.5, PLAIN))
    assert composite(image, [make_face(matrix, correction, confidence=0.0)], 1.0, PLAIN) is image


@pytest.mark.parametrize("strength", [-0.1, 1.5, float("nan")])
def test_a_strength_out_of_range_is_refused(scene, strength):
    with pytest.raises(ValueError, match="strength"):
        composite(scene[0], [], strength)


def test_the_mask_grid_divides_the_crop():
    assert 256 % MASK_SIZE == 0


def _fields(options: CompositeOptions) -> dict:
    return {name: getattr(options, name) for name in options.__slots__}
