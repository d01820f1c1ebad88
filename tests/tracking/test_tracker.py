"""Identity, birth, death and time, on a finder that follows a script."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest

from idm_rt.errors import ConfigError
from idm_rt.tracking.records import RawFace
from idm_rt.tracking.track import shape_agreement
from idm_rt.tracking.tracker import FaceTracker, TrackerOptions, TrackingResult

MESH = np.random.default_rng(0).uniform(0, 1, (478, 2))
MESH[:2] = [[0, 0], [1, 1]]
SCENES = [np.kron(np.random.default_rng(s).integers(0, 256, (6, 8, 3)), np.ones((40, 40, 1))) for s in (0, 1)]
ROOM, OTHER_ROOM = (scene.astype(np.uint8) for scene in SCENES)


def face(x: float, y: float = 100.0, side: float = 100.0, score: float = 0.9, yaw: float = 0.0) -> RawFace:
    return RawFace(MESH * side + [x, y], yaw, 0.0, score)


class ScriptedFinder:
    """Returns one list of faces per frame."""

    def __init__(self, script: Sequence[Sequence[RawFace]]) -> None:
        self.script = list(script)
        self.resets = 0
        self.closed = False

    def detect(self, image: np.ndarray, timestamp_ms: float) -> list[RawFace]:
        return list(self.script.pop(0))

    def reset(self) -> None:
        self.resets += 1

    def close(self) -> None:
        self.closed = True


def track(
    script: Sequence[Sequence[RawFace]],
    images: Sequence[np.ndarray] | None = None,
    times: Sequence[float] | None = None,
    **options: object,
) -> list[TrackingResult]:
    tracker = FaceTracker(ScriptedFinder(script), TrackerOptions(**options))  # type: ignore[arg-type]
    images = images or [ROOM] * len(script)
    times = times or [33.0 * i for i in range(len(script))]
    return [tracker.update(image, time) for image, time in zip(images, times, strict=True)]


def ids(results: Sequence[TrackingResult]) -> list[list[int]]:
    return [[track.track_id for track in result.tracks] for result in results]


def test_certain_face_is_there_in_its_first_frame_and_ages() -> None:
    results = track([[face(50)]] * 4)
    assert ids(results) == [[0]] * 4
    assert [r.tracks[0].age for r in results] == [0, 1, 2, 3]
    assert np.allclose(results[0].tracks[0].landmarks_xy, face(50).landmarks_xy)
    assert np.allclose(results[0].tracks[0].box_xyxy, face(50).box_xyxy)


def test_uncertain_face_must_be_seen_twice() -> None:
    doubtful = face(50, score=0.5)
    results = track([[doubtful], [doubtful], []])
    assert ids(results)[:2] == [[], [0]] and results[1].tracks[0].age == 0
    assert ids(track([[doubtful], [], [doubtful]])) == [[], [], []]


def test_birth_needs_more_than_staying() -> None:
    weak = face(50, score=0.3)
    assert ids(track([[weak]] * 3)) == [[]] * 3
    assert ids(track([[face(50)], *[[weak]] * 8])) == [[0]] * 9
    assert ids(track([[face(50)], *[[face(50, score=0.1)]] * 6]))[-1] == []  # below keep_score it counts as missed


def test_size_has_hysteresis_and_a_hard_minimum() -> None:
    assert ids(track([[face(50, side=44)]] * 2, min_face_px=40.0)) == [[], []]
    shrinking = [[face(50, side=side)] for side in (60, 55, 50, 46, 42, 41)]
    assert ids(track(shrinking, min_face_px=40.0)) == [[0]] * 6
    assert ids(track([*shrinking, *[[face(50, side=39)]] * 4], min_face_px=40.0))[-1] == []


def test_short_miss_keeps_the_id_and_fades() -> None:
    results = track([[face(50)], [face(50)], [], [], [face(50)]])
    assert ids(results) == [[0]] * 5
    scores = [r.tracks[0].score for r in results]
    assert scores[1] > scores[2] > scores[3] < scores[4]
    assert scores[3] < 0.5 * scores[1]


def test_long_miss_ends_the_id_for_good() -> None:
    results = track([[face(50)], *[[]] * 4, [face(50)]], max_missed=3)
    assert ids(results) == [[0], [0], [0], [0], [], [1]]


def test_unseen_face_coasts_but_not_far() -> None:
    results = track([*[[face(50 + 10 * i)] for i in range(10)], [], [], []])
    last, coasted = results[9].tracks[0].box_xyxy[0], results[12].tracks[0].box_xyxy[0]
    assert last < coasted < last + 10


def test_two_faces_that_pass_keep_their_ids() -> None:
    script = [[face(20 + 12 * i, 60, 80), face(260 - 12 * i, 180, 90)] for i in range(20)]
    for i, result in enumerate(track(script)):
        by_id = {t.track_id: t.box_xyxy for t in result.tracks}
        assert by_id[0][2] - by_id[0][0] == pytest.approx(80, abs=2)
        assert by_id[0][0] == pytest.approx(20 + 12 * i, abs=6)
        assert result.tracks[0].track_id == 1  # largest first


def test_order_of_detection_does_not_swap_ids() -> None:
    a, b = face(10, side=100), face(200, side=80)
    results = track([[a, b], [b, a], [a, b], [b, a]])
    assert ids(results) == [[0, 1]] * 4


def test_face_that_jumps_across_the_frame_is_another() -> None:
    results = track([[face(0)], [face(200)]], max_missed=0)
    assert ids(results) == [[0], [1]]


def test_face_inside_a_face_is_rejected() -> None:
    assert ids(track([[face(50, side=100), face(80, 130, 50)]])) == [[0]]
    assert ids(track([[face(0, side=100), face(90, side=100)]])) == [[0, 1]]  # neighbours that touch are two


def test_largest_faces_win_and_a_slightly_larger_newcomer_does_not_take_over() -> None:
    small, mid, large = face(0, side=60), face(120, side=80), face(210, side=100)
    assert ids(track([[small, mid, large]], max_faces=2)) == [[2, 1]]
    grown = face(0, side=84)
    assert ids(track([[mid], [mid, grown], [mid, grown]], max_faces=1)) == [[0]] * 3
    grown = face(0, side=115)
    assert ids(track([[mid], [mid, grown]], max_faces=1)) == [[0], [1]]


def test_scene_cut_gives_new_ids_in_the_same_place() -> None:
    finder = ScriptedFinder([[face(50)]] * 4)
    tracker = FaceTracker(finder)
    before = finder.resets
    results = [tracker.update(image, 33.0 * i) for i, image in enumerate([ROOM, ROOM, OTHER_ROOM, OTHER_ROOM])]
    assert [r.scene_cut for r in results] == [False, False, True, False]
    assert ids(results) == [[0], [0], [1], [1]] and finder.resets == before + 1


def test_face_of_the_old_shot_does_not_linger_after_a_cut() -> None:
    assert ids(track([[face(50)], []], [ROOM, OTHER_ROOM])) == [[0], []]


def test_frame_of_another_size_is_a_cut() -> None:
    results = track([[face(50)], [face(50)]], [ROOM, ROOM[:200]])
    assert results[1].scene_cut and ids(results) == [[0], [1]]


def test_reset_never_reuses_an_id() -> None:
    tracker = FaceTracker(ScriptedFinder([[face(50)]] * 2))
    first = tracker.update(ROOM, 0)
    tracker.reset()
    second = tracker.update(OTHER_ROOM, 0)
    assert ids([first, second]) == [[0], [1]] and not second.scene_cut


@pytest.mark.parametrize("times", [[0, 0, 0, 0], [100, 50, 0, -50], [0, 33, 33, 20], [0, 1e9, 0, 1e9]])
def test_time_that_does_not_rise_is_no_trouble(times: list[float]) -> None:
    results = track([[face(50 + i)] for i in range(4)], times=times)
    assert ids(results) == [[0]] * 4
    assert all(np.isfinite(r.tracks[0].landmarks_xy).all() for r in results)
    assert results[-1].tracks[0].box_xyxy[0] == pytest.approx(53, abs=2)


def test_long_pause_is_not_smoothed_over() -> None:
    results = track([[face(50)], [face(50)], [face(80)]], times=[0, 33, 1500])
    assert np.allclose(results[2].tracks[0].landmarks_xy, face(80).landmarks_xy)
    assert results[2].tracks[0].track_id == 0


def test_smoothing_calms_a_still_face() -> None:
    rng = np.random.default_rng(1)
    script = [[RawFace(face(50).landmarks_xy + rng.normal(0, 0.2, (478, 2)), 0, 0, 0.9)] for _ in range(60)]
    raw = np.array([frame[0].landmarks_xy for frame in script])
    out = np.array([r.tracks[0].landmarks_xy for r in track(script)])
    assert np.abs(np.diff(out[10:], axis=0)).mean() < np.abs(np.diff(raw[10:], axis=0)).mean() / 3


def test_photos_are_taken_as_they_are() -> None:
    script = [[face(50, side=40, score=0.4)], [face(60)], [face(60, yaw=30.0)], []]
    results = track(script, [ROOM, ROOM, OTHER_ROOM, ROOM], times=[0.0] * 4, video=False)
    assert ids(results) == [[0], [1], [2], []]
    assert not any(r.scene_cut for r in results)
    assert np.array_equal(results[1].tracks[0].landmarks_xy, face(60).landmarks_xy)
    assert results[2].tracks[0].yaw_deg == 30.0 and results[2].tracks[0].age == 0


def test_twenty_faces() -> None:
    crowd = [face(60 * (i % 5), 55 * (i // 5), 48) for i in range(20)]
    assert [len(r.tracks) for r in track([crowd] * 3, max_faces=32)] == [20] * 3
    assert len(track([crowd], max_faces=4)[0].tracks) == 4


def test_same_input_same_output() -> None:
    script = [[face(50 + 3 * i), face(200 - i, side=60)] for i in range(10)]
    for a, b in zip(track(script), track(script), strict=True):
        assert all(np.array_equal(x.landmarks_xy, y.landmarks_xy) for x, y in zip(a.tracks, b.tracks, strict=True))


def test_reported_landmarks_are_the_callers_own() -> None:
    tracker = FaceTracker(ScriptedFinder([[face(50)]] * 2))
    tracker.update(ROOM, 0).tracks[0].landmarks_xy[:] = 0
    assert tracker.update(ROOM, 33).tracks[0].box_xyxy[0] == pytest.approx(50)


def test_mesh_that_slips_off_the_face_costs_score() -> None:
    slipped = RawFace(face(50).landmarks_xy + np.random.default_rng(2).normal(0, 15, (478, 2)), 0, 0, 0.9)
    steady, shaken = track([[face(50)], [face(50)]]), track([[face(50)], [slipped]])
    assert shaken[1].tracks[0].score < 0.8 * steady[1].tracks[0].score
    assert shape_agreement(MESH * 80, MESH * 120 + [5, 9]) == pytest.approx(1.0)  # shift and scale are no change


@pytest.mark.parametrize("options", [{"max_faces": 0}, {"max_faces": 33}, {"min_face_px": -1}, {"keep_score": 0.5}])
def test_options_that_cannot_work(options: dict[str, float]) -> None:
    with pytest.raises(ConfigError):
        TrackerOptions(**options)  # type: ignore[arg-type]


def test_wrong_image_is_a_bug() -> None:
    with pytest.raises(ValueError, match="image"):
        FaceTracker(ScriptedFinder([])).update(np.zeros((4, 4), np.uint8), 0)


def test_context_manager_closes_the_finder() -> None:
    finder = ScriptedFinder([])
    with FaceTracker(finder):
        pass
    assert finder.closed
