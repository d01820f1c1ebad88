from __future__ import annotations

import numpy as np
import pytest

from idm_rt.media.compare import LINE_PX, contact_sheet, enclosing_box, side_by_side, side_by_side_size, spread


def plain(level: int, height: int = 40, width: int = 60) -> np.ndarray:
    return np.full((height, width, 3), level, np.uint8)


def test_side_by_side_holds_both_pictures_untouched(picture):
    before, after = picture(61, 40), 255 - picture(61, 40)
    result = side_by_side(before, after)
    assert result.shape[1::-1] == side_by_side_size(61, 40) == (122 + LINE_PX, 40)
    np.testing.assert_array_equal(result[:, :61], before)
    np.testing.assert_array_equal(result[:, -61:], after)
    assert (result[:, 61:-61] == 255).all()


def test_labels_are_small_and_in_the_corner():
    before = plain(128, 480, 640)
    result = side_by_side(before, before, labels=("before", "after"))
    touched = (result[:, :640] != 128).any(axis=2)
    assert touched[:60, :200].any()
    touched[:60, :200] = False
    assert not touched.any()
    assert (before == 128).all()
    tiny = side_by_side(plain(128), plain(128), labels=("before", "after"))
    assert (tiny[:, :60] == 128).all()


def test_sizes_must_agree():
    with pytest.raises(ValueError, match="equal sizes"):
        side_by_side(plain(0), plain(0, 41))


@pytest.mark.parametrize(("count", "wanted", "expected"), [(0, 3, []), (1, 3, [0]), (2, 3, [0, 1]), (9, 3, [1, 4, 7])])
def test_spread(count, wanted, expected):
    assert spread(count, wanted) == expected


def test_contact_sheet_shows_pairs_over_the_whole_clip():
    pairs = [(plain(i), plain(i + 100)) for i in range(9)]
    sheet = contact_sheet(pairs, rows=3, row_height=40, labels=None)
    assert sheet.shape == (3 * 40 + 2 * LINE_PX, 120 + LINE_PX, 3)
    for row, level in enumerate((1, 4, 7)):
        y = row * (40 + LINE_PX) + 20
        assert (sheet[y, 10, 0], sheet[y, -10, 0]) == (level, level + 100)


def test_contact_sheet_can_show_a_part(picture):
    before = picture(200, 100)
    sheet = contact_sheet([(before, before)], box_xyxy=(-5, 20, 50, 70), row_height=50, labels=None)
    np.testing.assert_array_equal(sheet[:, :50], before[20:70, :50])


def test_contact_sheet_of_pictures_of_different_widths():
    sheet = contact_sheet([(plain(1), plain(2)), (plain(3, 40, 20), plain(4, 40, 20))], row_height=40, labels=None)
    assert sheet.shape == (84, 124, 3)
    assert (sheet[50, 60:] == 255).all()


def test_contact_sheet_of_nothing():
    with pytest.raises(ValueError, match="at least one"):
        contact_sheet([])


def test_enclosing_box():
    assert enclosing_box([], (100, 100)) is None
    assert enclosing_box([(40, 40, 60, 60)], (100, 100), margin=0.5) == (30, 30, 70, 70)
    assert enclosing_box([(0, 0, 60, 60), (50, 10, 90, 95)], (100, 100), margin=1.0) == (0, 0, 100, 100)
