"""What holds for every similarity: pixels outside the mask are untouched, inputs are not modified, nothing fails."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from idm_rt.compositing import CompositeOptions, composite
from idm_rt.compositing.mask import soft_mask
from idm_rt.geometry import scale_of, transform_points

EAGER = CompositeOptions(min_face_px=0.0, inside_fade=(-2.0, -1.0), evidence_floor=1e6)


def similarity(log_scale: float, angle: float, x: float, y: float) -> np.ndarray:
    """Frame-to-crop matrix that brings frame px (x, y) to the middle of the crop."""
    a, b = np.exp(log_scale) * np.cos(angle), np.exp(log_scale) * np.sin(angle)
    linear = np.array([[a, -b], [b, a]])
    return np.column_stack([linear, np.array([127.5, 127.5]) - linear @ np.array([x, y])])


def touched_beyond_the_mask(before: np.ndarray, after: np.ndarray, face) -> int:
    """Changed pixels whose place in the crop is further from the mask than interpolation can reach."""
    rows, columns = np.nonzero((before != after).any(axis=2))
    places = transform_points(face.crop.frame_to_crop, np.column_stack([columns, rows]).astype(float))
    mask = soft_mask(face.crop, EAGER)
    reach = 2 + int(np.ceil(scale_of(face.crop.frame_to_crop) * 1.5 / 4))  # mask cells of 4 crop px
    padded = np.pad(mask > 0, reach)
    wide = np.zeros_like(padded)
    for dy in range(-reach, reach + 1):
        for dx in range(-reach, reach + 1):
            wide |= np.roll(padded, (dy, dx), axis=(0, 1))
    cells = np.rint((places + 0.5) / 4 - 0.5).astype(int) + reach
    inside = ((cells >= 0) & (cells < len(wide))).all(axis=1)
    cells = np.clip(cells, 0, len(wide) - 1)
    return int(np.sum(~(inside & wide[cells[:, 1], cells[:, 0]])))


@settings(max_examples=60, deadline=None)
@given(
    height=st.integers(1, 121),
    width=st.integers(1, 121),
    log_scale=st.floats(-4.0, 3.0),
    angle=st.floats(-3.2, 3.2),
    x=st.floats(-300, 300),
    y=st.floats(-300, 300),
    seed=st.integers(0, 99),
)
@example(height=1, width=1, log_scale=0.0, angle=0.0, x=0.0, y=0.0, seed=0)
@example(height=1, width=1, log_scale=5.5, angle=1.0, x=0.0, y=0.0, seed=0)
@example(height=119, width=77, log_scale=-5.0, angle=3.0, x=40.0, y=60.0, seed=1)
@example(height=101, width=101, log_scale=0.7, angle=0.5, x=50.0, y=50.0, seed=2)
@example(height=64, width=64, log_scale=0.0, angle=0.0, x=5000.0, y=0.0, seed=3)
def test_only_pixels_of_the_mask_change(make_face, height, width, log_scale, angle, x, y, seed):
    rng = np.random.default_rng(seed)
    image = rng.integers(0, 256, (height, width, 3), np.uint8)
    face = make_face(similarity(log_scale, angle, x, y), rng.uniform(-60, 60, (256, 256, 3)))
    kept_image, kept_correction = image.copy(), face.correction.copy()
    out = composite(image, [face], 1.0, EAGER)
    np.testing.assert_array_equal(image, kept_image)
    np.testing.assert_array_equal(face.correction, kept_correction)
    assert out.shape == image.shape and out.dtype == np.uint8
    assert out is image or not np.shares_memory(out, image)
    assert touched_beyond_the_mask(image, out, face) == 0


def test_most_of_the_face_does_change(make_face):
    """The property above is not empty: nearly all pixels of the face's middle change."""
    image = np.full((200, 240, 3), 90, np.uint8)
    face = make_face(similarity(0.5, 0.4, 120, 100), np.random.default_rng(0).uniform(-60, 60, (256, 256, 3)))
    out = composite(image, [face], 1.0, EAGER)
    assert (out != image).any(axis=2)[80:120, 100:140].mean() > 0.95


@pytest.mark.parametrize("shape", [(1, 1, 3), (641, 359, 3), (2, 7, 3)])
def test_no_face_returns_the_very_same_array(shape):
    image = np.random.default_rng(0).integers(0, 256, shape, np.uint8)
    assert composite(image, [], 1.0) is image


def test_a_face_outside_the_frame_returns_the_very_same_array(make_face):
    image = np.zeros((100, 100, 3), np.uint8)
    assert composite(image, [make_face(similarity(0.0, 0.0, 900.0, 50.0))], 1.0, EAGER) is image


def test_a_read_only_frame_is_fine(make_face):
    image = np.full((300, 300, 3), 100, np.uint8)
    image.setflags(write=False)
    out = composite(image, [make_face(similarity(0.0, 0.0, 150.0, 150.0), noise(0))], 1.0, EAGER)
    assert (out != image).any()


def noise(seed: int) -> np.ndarray:
    return np.random.default_rng(seed).uniform(-30, 30, (256, 256, 3)).astype(np.float32)


def test_a_face_given_twice_is_not_added_twice(make_face):
    image = np.full((300, 300, 3), 120, np.uint8)
    matrix = similarity(0.0, 0.1, 150.0, 150.0)
    once = composite(image, [make_face(matrix, noise(1))], 1.0, EAGER)
    twice = composite(image, [make_face(matrix, noise(1)), make_face(matrix, noise(1), track_id=2)], 1.0, EAGER)
    inner = soft_mask(make_face(matrix).crop, EAGER) == 1.0
    assert inner.mean() > 0.1
    centre = (slice(130, 170), slice(130, 170))  # where the mask is 1: the mean of two equal opinions
    assert np.abs(twice[centre].astype(int) - once[centre]).max() <= 1
    assert np.abs(once[centre].astype(int) - 120).max() > 20


@pytest.mark.parametrize("shift", [20.0, 60.0, 110.0])
def test_overlapping_faces_do_not_depend_on_their_order(make_face, shift):
    image = np.random.default_rng(5).integers(0, 256, (320, 420, 3), np.uint8)
    faces = [
        make_face(similarity(0.0, 0.1, 150.0, 150.0), noise(1), track_id=1),
        make_face(similarity(0.1, -0.1, 150.0 + shift, 160.0), noise(2), track_id=2),
        make_face(similarity(0.3, 0.0, 150.0, 150.0 + shift), noise(3), track_id=3),
    ]
    forward, backward = composite(image, faces, 1.0, EAGER), composite(image, faces[::-1], 1.0, EAGER)
    difference = np.abs(forward.astype(int) - backward)
    assert difference.max() <= 1 and (difference > 0).mean() < 1e-3  # float sums in another order: a rare tie
    bound = 30 + 60  # one mean of corrections after tone matching, never the sum of three
    assert np.abs(forward.astype(int) - image).max() <= bound


def test_where_faces_do_not_overlap_each_is_as_if_alone(make_face):
    image = np.random.default_rng(6).integers(0, 256, (300, 700, 3), np.uint8)
    left, right = (
        make_face(similarity(0.0, 0.1, 150.0, 150.0), noise(1)),
        make_face(similarity(0.0, 0.0, 520.0, 150.0), noise(2), track_id=2),
    )
    both = composite(image, [left, right], 1.0, EAGER)
    step_by_step = composite(composite(image, [left], 1.0, EAGER), [right], 1.0, EAGER)
    np.testing.assert_array_equal(both, step_by_step)
