"""Decoding the detector's output, on rows made by hand."""

from __future__ import annotations

import numpy as np
import pytest

from idm_rt.tracking import blazeface

ANCHORS = blazeface.anchors()


def rows(*faces: tuple[int, float, float, float]) -> tuple[np.ndarray, np.ndarray]:
    """Regressors and logits in which the anchors (index, side in px, roll, logit) see a face centred on them."""
    regressors, logits = np.zeros((896, 16), np.float32), np.full(896, -20.0, np.float32)
    for index, side, roll, logit in faces:
        eye = 0.2 * side * np.array([np.cos(roll), np.sin(roll)])
        regressors[index, 2:4], regressors[index, 4:6], regressors[index, 6:8] = side, -eye, eye
        logits[index] = logit
    return regressors, logits


def test_anchors_cover_both_grids() -> None:
    assert ANCHORS.shape == (896, 2)
    assert ANCHORS[0].tolist() == ANCHORS[1].tolist() == [1 / 32, 1 / 32]
    assert ANCHORS[2].tolist() == [3 / 32, 1 / 32]  # x runs fastest
    assert ANCHORS[512].tolist() == ANCHORS[517].tolist() == [1 / 16, 1 / 16]
    assert ANCHORS[-1].tolist() == [15 / 16, 15 / 16]


def test_box_score_and_roll_of_one_face() -> None:
    (face,) = blazeface.decode(*rows((600, 64.0, 0.3, 2.0)), ANCHORS, 0.5)
    centre = ANCHORS[600]
    assert face.box_xyxy == pytest.approx([*(centre - 0.25), *(centre + 0.25)])
    assert face.score == pytest.approx(1 / (1 + np.exp(-2.0))) and face.roll_rad == pytest.approx(0.3, abs=1e-6)


def test_overlapping_boxes_become_their_weighted_mean() -> None:
    near = int(np.argmin(np.abs(ANCHORS - ANCHORS[600] - [1 / 16, 0]).sum(axis=1)))
    (face,) = blazeface.decode(*rows((600, 64.0, 0.0, 4.0), (near, 64.0, 0.0, 1.0)), ANCHORS, 0.5)
    scores = 1 / (1 + np.exp(-np.array([4.0, 1.0])))
    x = np.average([ANCHORS[600, 0], ANCHORS[near, 0]], weights=scores)
    assert (face.box_xyxy[0] + face.box_xyxy[2]) / 2 == pytest.approx(x)
    assert face.score == pytest.approx(scores[0])


def test_faces_apart_stay_apart_and_the_most_certain_comes_first() -> None:
    faces = blazeface.decode(*rows((512, 20.0, 0.0, 1.0), (890, 20.0, 0.0, 3.0)), ANCHORS, 0.5)
    assert [round(face.score, 2) for face in faces] == [0.95, 0.73]


def test_uncertain_rows_are_dropped_whatever_their_size() -> None:
    assert blazeface.decode(*rows((512, 20.0, 0.0, -0.1)), ANCHORS, 0.5) == []
    assert len(blazeface.decode(*rows((512, 20.0, 0.0, -0.1)), ANCHORS, 0.4)) == 1
    (sure,) = blazeface.decode(*rows((512, 20.0, 0.0, 1e6)), ANCHORS, 0.5)
    assert sure.score == 1.0
