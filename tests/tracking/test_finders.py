"""The finders on stand-in nets that see coloured squares as faces."""

from __future__ import annotations

import numpy as np
import pytest

from idm_rt.tracking import windows
from idm_rt.tracking.face_search import in_frame_fraction, strongest
from idm_rt.tracking.finders import FinderOptions, PhotoFaceFinder, VideoFaceFinder
from idm_rt.tracking.records import FaceBox, RawFace

SQUARE_MESH = np.random.default_rng(0).uniform(0, 1, (478, 2))
SQUARE_MESH[:4] = [[0, 0], [1, 0], [1, 1], [0, 1]]


def squares(picture: np.ndarray) -> list[np.ndarray]:
    """Boxes of the squares of each grey level in a picture."""
    boxes = []
    for level in np.unique(picture[..., 0]):
        if level:
            ys, xs = np.nonzero(picture[..., 0] == level)
            boxes.append(np.array([xs.min(), ys.min(), xs.max(), ys.max()], dtype=np.float64))
    return boxes


class FakeDetector:
    """Finds squares that fill at least 15 % of what it is shown, as the real one does."""

    def __init__(self, score: float = 0.9) -> None:
        self.score, self.calls, self.closed, self.blind = score, 0, False, False

    def detect(self, image: np.ndarray) -> list[FaceBox]:
        self.calls += 1
        if self.blind:
            return []
        least = windows.DETECTABLE_FRACTION * max(image.shape[:2]) * 0.95
        return [FaceBox(box, self.score) for box in squares(image) if windows.larger_side(box) >= least]

    def close(self) -> None:
        self.closed = True


class FakeLandmarker:
    """Meshes every square of at least 20 % of what it is shown."""

    def __init__(self) -> None:
        self.shown: list[tuple[int, int]] = []
        self.closed = False

    def detect(self, image: np.ndarray, around: FaceBox) -> list[RawFace]:
        self.shown.append(image.shape[:2])
        large = [box for box in squares(image) if windows.larger_side(box) >= 0.2 * max(image.shape[:2])]
        return [RawFace(box[:2] + SQUARE_MESH * (box[2:] - box[:2]), 0.0, 0.0) for box in large]

    def close(self) -> None:
        self.closed = True


def frame(*boxes: tuple[int, int, int], hw: tuple[int, int] = (720, 1280)) -> np.ndarray:
    image = np.zeros((*hw, 3), np.uint8)
    for level, (x, y, side) in enumerate(boxes, start=1):
        image[max(0, y) : max(0, y + side), max(0, x) : max(0, x + side)] = 40 * level
    return image


def video(**options: float) -> tuple[VideoFaceFinder, FakeDetector, FakeLandmarker]:
    detector, landmarker = FakeDetector(), FakeLandmarker()
    return VideoFaceFinder(detector, landmarker, FinderOptions(**options)), detector, landmarker  # type: ignore[arg-type]


def test_large_face_is_found_at_once_and_in_place() -> None:
    finder, _, _ = video()
    (face,) = finder.detect(frame((300, 200, 240)), 0)
    assert face.box_xyxy == pytest.approx(np.array([300, 200, 539, 439]), abs=2)
    assert face.score == pytest.approx(0.9)


@pytest.mark.parametrize("side", [50, 80, 120])
def test_small_face_is_found_within_a_second_and_then_followed(side: int) -> None:
    finder, _, _ = video()
    found = [len(finder.detect(frame((900 + 2 * i, 500, side)), 33 * i)) for i in range(45)]
    first = found.index(1)
    assert first <= 30 and all(found[first:])


def test_followed_face_costs_one_mesh_whatever_the_frame() -> None:
    finder, detector, landmarker = video(search_every=3)
    finder.detect(frame((800, 400, 600), hw=(2160, 3840)), 0)
    landmarker.shown.clear()
    detector.calls = 0
    for i in range(9):
        assert len(finder.detect(frame((800 + 5 * i, 400, 600), hw=(2160, 3840)), 33 * i)) == 1
    assert len(landmarker.shown) == 9 and max(max(hw) for hw in landmarker.shown) < 770
    assert detector.calls == 3


def test_second_face_is_found_beside_a_followed_one() -> None:
    finder, _, _ = video()
    finder.detect(frame((100, 200, 240)), 0)
    counts = [len(finder.detect(frame((100, 200, 240), (800, 200, 250)), 33 * i)) for i in range(12)]
    assert counts[-1] == 2


def test_fast_face_is_followed_by_its_velocity() -> None:
    finder, _, _ = video()
    xs = [100, 160, 280, 420, 570, 720, 870]  # speeds up to 0.6 of its size per frame
    boxes = [finder.detect(frame((x, 200, 240)), 33 * i)[0].box_xyxy for i, x in enumerate(xs)]
    assert [box[0] for box in boxes] == pytest.approx(xs, abs=2)


def test_face_gone_for_two_frames_is_picked_up_without_a_search() -> None:
    finder, detector, _ = video(search_every=1000)
    finder.detect(frame((300, 200, 100), hw=(480, 640)), 0)
    finder.detect(frame((300, 200, 100), hw=(480, 640)), 33)
    detector.calls = 0
    counts = [
        len(finder.detect(frame(*boxes, hw=(480, 640)), 66 + 33 * i))
        for i, boxes in enumerate([(), (), ((302, 200, 100),)])
    ]
    assert counts == [0, 0, 1] and detector.calls == 0


def test_face_that_no_detector_confirms_is_given_up() -> None:
    """A mesh that clings to something is let go half a second after the detector last saw a face there."""
    finder, detector, _ = video()
    picture = frame((300, 200, 240))
    assert all(len(finder.detect(picture, 33 * i)) == 1 for i in range(8))
    detector.blind = True
    counts = [len(finder.detect(picture, 33 * i)) for i in range(8, 30)]
    assert counts.index(0) <= 15 and not any(counts[counts.index(0) :])


@pytest.mark.parametrize("blind_frames", [1, 2])
def test_detector_that_fails_briefly_loses_nobody(blind_frames: int) -> None:
    finder, detector, _ = video()
    picture = frame((300, 200, 240))
    for i in range(40):
        detector.blind = i % 9 in range(3, 3 + blind_frames)
        assert len(finder.detect(picture, 33 * i)) == 1


def test_faces_too_small_for_the_whole_frame_are_confirmed_on_their_own() -> None:
    finder, _, _ = video()
    picture = frame((300, 200, 60), (700, 400, 70))
    counts = [len(finder.detect(picture, 33 * i)) for i in range(400)]
    first = counts.index(2)
    assert all(count == 2 for count in counts[first:])


def test_confirming_takes_the_turn_of_a_tile() -> None:
    finder, detector, _ = video()
    picture = frame((300, 200, 60))
    while not finder.detect(picture, 0):
        pass
    detector.calls = 0
    for i in range(90):
        finder.detect(picture, 33 * i)
    assert detector.calls == 30


def test_window_is_not_carried_on_by_small_motion() -> None:
    """A face that trembles by 6 px is 6 px from its window's middle; followed by its velocity it would be 12."""
    off: list[float] = []

    class Noting(FakeLandmarker):
        def detect(self, image: np.ndarray, around: FaceBox) -> list[RawFace]:
            off.append(abs(float(squares(image)[0][[0, 2]].mean() - around.box_xyxy[[0, 2]].mean())))
            return super().detect(image, around)

    finder = VideoFaceFinder(FakeDetector(), Noting())
    for i in range(8):
        finder.detect(frame((300 + 6 * (i % 2), 200, 240)), 33 * i)
    assert 5 <= max(off[2:]) <= 7


def test_lost_face_is_given_up_and_searched_for() -> None:
    finder, detector, _ = video(max_missed=2)
    finder.detect(frame((300, 200, 240)), 0)
    for i in range(4):
        assert finder.detect(frame(), 33 * i) == []
    detector.calls = 0
    (face,) = finder.detect(frame((900, 300, 240)), 200)
    assert detector.calls >= 1 and face.box_xyxy[0] == pytest.approx(900, abs=2)


def test_largest_faces_win() -> None:
    finder, _, _ = video(max_faces=2)
    (one, two) = finder.detect(frame((20, 20, 210), (400, 20, 260), (800, 20, 230)), 0)
    assert (one.box_xyxy[0], two.box_xyxy[0]) == pytest.approx((400, 800), abs=2)


def test_frame_of_another_size_starts_afresh() -> None:
    finder, _, _ = video()
    finder.detect(frame((300, 200, 240)), 0)
    (face,) = finder.detect(frame((10, 10, 200), hw=(480, 640)), 33)
    assert face.box_xyxy[0] == pytest.approx(10, abs=2)


def test_reset_forgets() -> None:
    finder, _, landmarker = video()
    finder.detect(frame((300, 200, 240)), 0)
    finder.reset()
    landmarker.shown.clear()
    assert finder.detect(frame(), 33) == [] and landmarker.shown == []


@pytest.mark.parametrize("hw", [(1, 1), (1, 640), (2, 2000), (7, 7)])
@pytest.mark.parametrize("kind", [VideoFaceFinder, PhotoFaceFinder])
def test_degenerate_frames_hold_no_face(kind: type, hw: tuple[int, int]) -> None:
    finder = kind(FakeDetector(), FakeLandmarker())
    assert all(finder.detect(np.full((*hw, 3), 0, np.uint8), i) == [] for i in range(3))


def test_face_half_outside_scores_what_is_inside() -> None:
    finder, _, _ = video()
    (face,) = finder.detect(frame((-100, 200, 400)), 0)
    # what is outside repeats the border, so the stand-in sees a square that is wider than it is
    assert face.score == pytest.approx(0.9 * in_frame_fraction(face.landmarks_xy, (720, 1280))) and face.score < 0.9


def test_photo_finds_twenty_faces_of_many_sizes() -> None:
    places = [(20 + 250 * (i % 5), 20 + 175 * (i // 5), 40 + 5 * i) for i in range(20)]
    levels = np.zeros((720, 1280, 3), np.uint8)
    for i, (x, y, side) in enumerate(places):
        levels[y : y + side, x : x + side] = 10 + 10 * i
    faces = PhotoFaceFinder(FakeDetector(), FakeLandmarker(), FinderOptions(max_faces=32)).detect(levels, 0)
    found = sorted(tuple(np.round(face.box_xyxy[:2]).astype(int)) for face in faces)
    assert len(found) == 20 and np.abs(np.array(found) - sorted((x, y) for x, y, _ in places)).max() <= 2


def test_photos_do_not_know_each_other() -> None:
    finder = PhotoFaceFinder(FakeDetector(), FakeLandmarker())
    assert len(finder.detect(frame((300, 200, 240)), 0)) == 1
    assert finder.detect(frame(), 0) == []


@pytest.mark.parametrize("kind", [VideoFaceFinder, PhotoFaceFinder])
def test_close_frees_both_nets(kind: type) -> None:
    detector, landmarker = FakeDetector(), FakeLandmarker()
    kind(detector, landmarker).close()
    assert detector.closed and landmarker.closed


def test_strongest_keeps_the_best_box_of_each_face() -> None:
    def box(x: float, score: float) -> FaceBox:
        return FaceBox(np.array([x, 0.0, x + 100, 100.0]), score)

    kept = strongest([box(0, 0.6), box(10, 0.9), box(300, 0.5)])
    assert [face.score for face in kept] == [0.9, 0.5]


def test_in_frame_fraction() -> None:
    points = np.array([[0.0, 0.0], [9.0, 9.0], [10.0, 5.0], [-1.0, 5.0]])
    assert in_frame_fraction(points, (10, 10)) == 0.5
