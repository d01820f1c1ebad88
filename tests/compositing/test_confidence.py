from __future__ import annotations

import numpy as np
import pytest

from idm_rt.compositing import CompositeOptions, face_confidence
from idm_rt.types import FaceTrack

FRAME_HW = (480, 640)


def track(side: float = 200.0, centre: tuple[float, float] = (320.0, 240.0), **values: float) -> FaceTrack:
    """A square face of landmarks on a 22 x 22 grid (the last six left out: 478)."""
    grid = (np.arange(22) + 0.5) / 22 - 0.5
    points = np.stack(np.meshgrid(grid, grid), axis=-1).reshape(-1, 2)[:478] * side + centre
    box = np.array([centre[0] - side / 2, centre[1] - side / 2, centre[0] + side / 2, centre[1] + side / 2])
    record = {"score": 0.98, "yaw_deg": 0.0, "pitch_deg": 0.0, "age": 50, **values}
    return FaceTrack(1, box, points, **record)


@pytest.mark.parametrize(
    ("values", "low", "high"),
    [
        ({}, 1.0, 1.0),
        ({"yaw_deg": 44.0}, 1.0, 1.0),
        ({"yaw_deg": -55.0}, 0.49, 0.51),
        ({"yaw_deg": 60.0}, 0.05, 0.25),
        ({"yaw_deg": -65.0}, 0.0, 0.0),
        ({"yaw_deg": 90.0}, 0.0, 0.0),
        ({"pitch_deg": 30.0}, 1.0, 1.0),
        ({"pitch_deg": -45.0}, 0.49, 0.51),
        ({"pitch_deg": 60.0}, 0.0, 0.0),
        ({"side": 39.0}, 0.0, 0.0),
        ({"side": 50.0}, 0.49, 0.51),
        ({"side": 60.0}, 1.0, 1.0),
        ({"score": 0.4}, 0.0, 0.0),
        ({"score": 0.55}, 0.49, 0.51),
        ({"score": 0.7}, 1.0, 1.0),
        ({"score": float("nan")}, 0.0, 0.0),
        ({"age": 0}, 0.2, 0.2),
        ({"age": 1}, 0.4, 0.4),
        ({"age": 4}, 1.0, 1.0),
        ({"centre": (0.0, 240.0)}, 0.01, 0.6),  # half of the face
        ({"centre": (640.0, 480.0)}, 0.0, 0.0),  # a quarter of the face
        ({"centre": (-500.0, 240.0)}, 0.0, 0.0),
    ],
)
def test_the_table_of_fades(values, low, high):
    assert low - 1e-9 <= face_confidence(track(**values), FRAME_HW) <= high + 1e-9


@pytest.mark.parametrize(
    ("name", "points", "rises"),
    [
        ("yaw_deg", np.linspace(0, 90, 181), False),
        ("pitch_deg", np.linspace(0, 90, 181), False),
        ("side", np.linspace(10, 120, 221), True),
        ("score", np.linspace(0, 1, 201), True),
        ("age", np.arange(10), True),
    ],
)
def test_each_fade_is_monotonic_and_has_no_step(name, points, rises):
    values = np.array([face_confidence(track(**{name: p}), FRAME_HW) for p in points])
    steps = np.diff(values) if rises else -np.diff(values)
    assert steps.min() >= -1e-12
    assert steps.max() <= (0.21 if name == "age" else 0.05)
    assert {values.min(), values.max()} <= {0.0, 1.0, 0.2}


def test_unrelated_pictures_have_no_fade_in():
    assert face_confidence(track(age=0), FRAME_HW, CompositeOptions(fade_in_frames=0)) == 1.0


def test_the_minimum_size_is_an_option():
    assert face_confidence(track(side=50.0), FRAME_HW, CompositeOptions(min_face_px=20.0)) == 1.0
    assert face_confidence(track(side=1.0), FRAME_HW, CompositeOptions(min_face_px=0.0)) == 1.0


@pytest.mark.parametrize(
    "values",
    [
        {"yaw_fade_deg": (60.0, 40.0)},
        {"min_face_px": -1.0},
        {"fade_in_frames": -1},
        {"forehead": 0.9},
        {"feather": 0.0},
        {"tone_share": 1.5},
        {"evidence_gain": -1.0},
        {"sharp_detail": (0.2, 0.1)},
    ],
)
def test_options_that_cannot_work_are_refused(values):
    with pytest.raises(ValueError, match=r"expected|found"):
        CompositeOptions(**values)
