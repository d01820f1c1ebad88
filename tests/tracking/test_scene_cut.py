from __future__ import annotations

import cv2
import numpy as np
import pytest

from idm_rt.tracking.scene_cut import SceneCutDetector, rank_correlation, thumbnail, unexplained_fraction


def scene(seed: int, width: int = 640, height: int = 480) -> np.ndarray:
    """Large soft shapes, as a room with a person has."""
    rng = np.random.default_rng(seed)
    coarse = rng.integers(0, 256, (6, 8, 3)).astype(np.uint8)
    return cv2.resize(coarse, (width, height), interpolation=cv2.INTER_CUBIC)


def shifted(image: np.ndarray, dx: int) -> np.ndarray:
    matrix = np.array([[1, 0, dx], [0, 1, 0]], dtype=np.float32)
    return cv2.warpAffine(image, matrix, image.shape[1::-1], borderMode=cv2.BORDER_REFLECT)


def as_jpeg(image: np.ndarray, quality: int) -> np.ndarray:
    return cv2.imdecode(cv2.imencode(".jpg", image, [cv2.IMWRITE_JPEG_QUALITY, quality])[1], cv2.IMREAD_COLOR)


def fires(before: np.ndarray, after: np.ndarray) -> bool:
    detector = SceneCutDetector()
    assert detector.update(before) is False  # a first frame is no cut
    return detector.update(after)


@pytest.mark.parametrize("seed", range(8))
def test_hard_cut_fires(seed: int) -> None:
    assert fires(scene(seed), scene(seed + 100))


def test_each_frame_is_compared_with_the_one_before() -> None:
    detector = SceneCutDetector()
    shots = [scene(1), scene(1), scene(2), scene(2), scene(1)]
    assert [detector.update(frame) for frame in shots] == [False, False, True, False, True]


@pytest.mark.parametrize(
    "after",
    [
        pytest.param(lambda im: im, id="same"),
        pytest.param(lambda im: shifted(im, 40), id="pan by 6 % of the width"),
        pytest.param(lambda im: np.clip(im * 1.6 + 30.0, 0, 255).astype(np.uint8), id="flash that clips"),
        pytest.param(lambda im: (im * 0.4).astype(np.uint8), id="light off"),
        pytest.param(lambda im: as_jpeg(im, 3), id="blocks"),
        pytest.param(
            lambda im: np.clip(im + np.random.default_rng(0).normal(0, 30, im.shape), 0, 255).astype(np.uint8),
            id="noise",
        ),
    ],
)
def test_the_same_shot_does_not_fire(after) -> None:  # type: ignore[no-untyped-def]
    for seed in range(5):
        assert not fires(scene(seed), after(scene(seed)))


def test_a_head_that_moves_fast_before_a_still_room_does_not_fire() -> None:
    frames = []
    for x in (150, 210, 270):
        frame = scene(3)
        cv2.ellipse(frame, (x, 260), (90, 130), 0, 0, 360, (200, 160, 140), -1)
        frames.append(frame)
    detector = SceneCutDetector()
    assert not any(detector.update(frame) for frame in frames)


def test_another_frame_size_is_a_cut() -> None:
    assert fires(scene(0), scene(0, 320, 240))


def test_reset_makes_the_next_frame_a_first_frame() -> None:
    detector = SceneCutDetector()
    detector.update(scene(0))
    detector.reset()
    assert detector.update(scene(100)) is False


@pytest.mark.parametrize("hw", [(1, 1), (2, 2000), (359, 641)])
def test_odd_sizes_work(hw: tuple[int, int]) -> None:
    black = np.zeros((*hw, 3), np.uint8)
    assert thumbnail(black).shape == (24, 32) and not fires(black, black)


def test_the_two_measures() -> None:
    a, b = thumbnail(scene(0)), thumbnail(scene(100))
    assert unexplained_fraction(a, a) == 0.0 and rank_correlation(a, a) == pytest.approx(1.0)
    assert rank_correlation(a, 255 - a) == pytest.approx(-1.0, abs=1e-3)
    assert unexplained_fraction(a, b) > 0.2
