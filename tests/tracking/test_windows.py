from __future__ import annotations

import numpy as np
import pytest

from idm_rt.tracking import windows
from idm_rt.tracking.matching import match_boxes
from idm_rt.tracking.windows import DETECTABLE_FRACTION, Window, cut, search_windows, window_around


def box(x: float, y: float, side: float) -> np.ndarray:
    return np.array([x, y, x + side, y + side], dtype=np.float64)


def ramp(height: int, width: int) -> np.ndarray:
    """Red holds x, green holds y, so that a pixel tells where it comes from."""
    y, x = np.mgrid[0:height, 0:width]
    return np.stack([x, y, np.zeros_like(x)], axis=2).astype(np.uint8)


def test_window_around_is_square_and_centred() -> None:
    assert window_around(np.array([10.0, 20.0, 30.0, 60.0]), 0.5) == Window(-20, 0, 60, 80)


def test_cut_inside_is_a_view_of_the_frame() -> None:
    image = ramp(50, 60)
    part = cut(image, Window(10, 5, 40, 35))
    assert part is not None and np.shares_memory(part.image, image) and part.image.shape == (30, 30, 3)
    assert np.array_equal(part.to_frame(np.array([[0.0, 0.0], [3.0, 4.0]])), [[10.0, 5.0], [13.0, 9.0]])


def test_cut_outside_repeats_the_border() -> None:
    part = cut(ramp(50, 60), Window(-10, -20, 30, 20))
    assert part is not None and part.image.shape == (40, 40, 3)
    assert part.image[0, 0].tolist() == [0, 0, 0] and part.image[25, 15].tolist() == [5, 5, 0]
    assert np.array_equal(part.to_frame(np.array([[15.0, 25.0]])), [[5.0, 5.0]])


@pytest.mark.parametrize("exact", [True, False])
@pytest.mark.parametrize("window", [Window(0, 0, 1000, 1000), Window(-330, -111, 801, 1020)])
def test_large_window_is_made_smaller_and_points_find_back(window: Window, exact: bool) -> None:
    image = np.zeros((1000, 1000, 3), np.uint8)
    image[400:440, 600:640] = 255  # centre (619.5, 419.5)
    part = cut(image, window, exact=exact)
    assert part is not None and part.factor == 2
    ys, xs = np.nonzero(part.image[..., 0] > 127)
    assert part.to_frame(np.array([[xs.mean(), ys.mean()]])) == pytest.approx(np.array([[619.5, 419.5]]), abs=1.0)


@pytest.mark.parametrize("window", [Window(100, 100, 130, 130), Window(-30, -30, 3, 3), Window(4, 4, 4, 4)])
def test_cut_that_shows_nothing_is_none(window: Window) -> None:
    assert cut(ramp(50, 60), window) is None


@pytest.mark.parametrize("frame_hw", [(1, 1), (2, 2000), (359, 641), (720, 1280), (2160, 3840)])
def test_search_windows_show_every_face_large_enough_and_whole(frame_hw: tuple[int, int]) -> None:
    height, width = frame_hw
    plan = search_windows(frame_hw, 40.0)
    assert plan[0] == Window(0, 0, width, height)
    rng = np.random.default_rng(0)
    for _ in range(100):
        side = rng.uniform(40, max(41, min(height, width) * 0.9))
        x, y = rng.uniform(0, max(1, width - side)), rng.uniform(0, max(1, height - side))
        assert any(
            w.x0 <= x and w.y0 <= y and x + side <= w.x1 and y + side <= w.y1
            and side >= DETECTABLE_FRACTION * w.longer_side * 0.999
            for w in plan
        ) or min(height, width) < side  # fmt: skip


def test_a_small_minimum_needs_more_windows() -> None:
    assert len(search_windows((720, 1280), 200)) == 2 < len(search_windows((720, 1280), 100)) < 80


def test_overlap_of_smaller_and_drop_nested() -> None:
    outer, inner, beside = box(0, 0, 100), box(20, 20, 30), box(90, 0, 50)
    assert windows.overlap_of_smaller(outer, inner) == 1.0
    assert windows.overlap_of_smaller(outer, beside) == pytest.approx(0.2)
    assert windows.overlap_of_smaller(outer, box(0, 0, 0)) == 0.0
    assert windows.drop_nested([inner, outer, beside], 0.6) == [1, 2]
    assert windows.drop_nested([], 0.6) == []


def test_distance_in_sizes_does_not_depend_on_scale() -> None:
    near = windows.distance_in_sizes(box(0, 0, 10), box(5, 0, 10))
    assert near == pytest.approx(0.5) == windows.distance_in_sizes(box(0, 0, 100), box(50, 0, 100))
    assert windows.distance_in_sizes(box(0, 0, 100), box(25, 25, 50)) == pytest.approx(np.log(2))


def test_match_takes_the_closest_pairs_once_each() -> None:
    known = [box(0, 0, 100), box(200, 0, 100)]
    assert sorted(match_boxes(known, [box(190, 0, 100), box(10, 0, 100)], 1.0)) == [(0, 1), (1, 0)]
    assert match_boxes(known, [box(600, 0, 100)], 1.0) == []
    assert match_boxes([], [box(0, 0, 1)], 1.0) == [] == match_boxes(known, [], 1.0)
    assert match_boxes(known[:1], [box(30, 0, 100), box(5, 0, 100)], 1.0) == [(0, 1)]
