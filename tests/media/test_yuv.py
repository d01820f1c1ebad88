from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from idm_rt.media.orientation import EXIF_ORIENTATIONS, UPRIGHT, Orientation, orientation_of_matrix
from idm_rt.media.yuv import add_difference, changed_box, rgb_to_planes, rgb_to_yuv_matrix


@pytest.mark.parametrize(
    ("matrix", "full", "rgb", "yuv"),
    [
        (1, False, (255, 255, 255), (235, 128, 128)),
        (1, False, (0, 0, 0), (16, 128, 128)),
        (1, True, (255, 255, 255), (255, 128, 128)),
        (6, False, (255, 0, 0), (81, 90, 240)),  # the colour bars of BT.601
        (5, False, (0, 255, 0), (145, 54, 34)),
        (1, False, (255, 0, 0), (63, 102, 240)),  # and of BT.709
        (1, False, (0, 0, 255), (32, 240, 118)),
        (2, False, (0, 0, 255), (41, 240, 110)),  # not stated: BT.601
        (9, False, (255, 0, 0), (74, 97, 240)),
    ],
)
def test_known_colours(matrix, full, rgb, yuv):
    image = np.full((4, 6, 3), rgb, np.uint8)
    for subsampled in (False, True):
        planes = rgb_to_planes(image, matrix, full, subsampled)
        assert tuple(int(plane[0, 0]) for plane in planes) == yuv
        assert all((plane == plane[0, 0]).all() for plane in planes)


@pytest.mark.parametrize("size", [(1, 1), (2, 2), (3, 5), (4, 4), (7, 6)])
def test_chroma_is_half_as_large_rounded_up(size, picture):
    planes = rgb_to_planes(picture(*size), 1, False, subsampled=True)
    width, height = size
    half = ((height + 1) // 2, (width + 1) // 2)
    assert [plane.shape for plane in planes] == [(height, width), half, half]


@given(
    size=st.tuples(st.integers(1, 13), st.integers(1, 13)),
    corner=st.tuples(st.integers(0, 12), st.integers(0, 12)),
    extent=st.tuples(st.integers(1, 13), st.integers(1, 13)),
    subsampled=st.booleans(),
    full=st.booleans(),
)
def test_adding_a_difference_equals_converting_the_changed_picture(size, corner, extent, subsampled, full):
    """Up to the rounding of two conversions instead of one; and samples away from the change stay bit for bit."""
    width, height = size
    rng = np.random.default_rng(width * 100 + height)
    before = rng.integers(60, 180, (height, width, 3), dtype=np.uint8)
    after = before.copy()
    x0, y0 = corner
    after[y0 : y0 + extent[1], x0 : x0 + extent[0]] += 31
    planes = rgb_to_planes(before, 1, full, subsampled)
    original = [plane.copy() for plane in planes]
    add_difference(planes, before, after, 1, full)
    expected = rgb_to_planes(after, 1, full, subsampled)
    for result, wanted in zip(planes, expected, strict=True):
        assert np.abs(result.astype(int) - wanted).max() <= 1
    np.testing.assert_array_equal(planes[0][(before == after).all(axis=2)], original[0][(before == after).all(axis=2)])
    if (before == after).all():
        for result, kept in zip(planes, original, strict=True):
            np.testing.assert_array_equal(result, kept)


def test_luma_weights_of_a_row_sum_to_one():
    for matrix in (1, 2, 4, 5, 6, 7, 9):
        linear, offset = rgb_to_yuv_matrix(matrix, full_range=True)
        np.testing.assert_allclose(linear.sum(axis=1), [1, 0, 0], atol=1e-12)
        np.testing.assert_array_equal(offset, [0, 128, 128])


def test_changed_box():
    before = np.zeros((20, 30, 3), np.uint8)
    assert changed_box(before, before) is None
    assert changed_box(before, before.copy()) is None
    after = before.copy()
    after[4, 7, 2] = 1
    after[9, 28, 0] = 1
    assert changed_box(before, after) == (7, 4, 29, 10)


@pytest.mark.parametrize("orientation", list(EXIF_ORIENTATIONS.values()))
def test_orientation_is_undone(orientation, picture):
    image = picture(7, 5)
    upright = orientation.apply(image)
    assert upright.shape[1::-1] == orientation.size(7, 5)
    np.testing.assert_array_equal(orientation.undo(upright), image)


ONE = 1 << 16


@pytest.mark.parametrize(
    ("matrix", "expected", "degrees"),
    [
        ((ONE, 0, 0, 0, ONE, 0, 0, 0, 1 << 30), UPRIGHT, 0),
        ((0, ONE, 0, -ONE, 0, 0, 480, 0, 1 << 30), EXIF_ORIENTATIONS[6], 90),
        ((-ONE, 0, 0, 0, -ONE, 0, 0, 0, 1 << 30), EXIF_ORIENTATIONS[3], 180),
        ((0, -ONE, 0, ONE, 0, 0, 0, 0, 1 << 30), EXIF_ORIENTATIONS[8], 270),
        ((-ONE, 0, 0, 0, ONE, 0, 0, 0, 1 << 30), Orientation(flip_x=True), 0),
        ((46341, 46341, 0, -46341, 46341, 0, 0, 0, 1 << 30), None, None),  # 45 degrees
        ((0, 0, 0, 0, 0, 0, 0, 0, 0), None, None),
    ],
)
def test_display_matrix(matrix, expected, degrees):
    found = orientation_of_matrix(matrix)
    assert found == expected
    if found is not None:
        assert found.rotation_deg == degrees
