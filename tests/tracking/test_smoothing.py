from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from idm_rt.tracking.smoothing import OneEuroFilter, smoothing_factor

DT_S = 1 / 30
points = arrays(np.float64, (5, 2), elements=st.floats(-1000, 1000))
sequences = arrays(np.float64, (6, 5, 2), elements=st.floats(-1000, 1000))


def run(sequence: np.ndarray, size: float = 100.0, dt_s: float = DT_S) -> np.ndarray:
    smooth = OneEuroFilter()
    return np.array([smooth(frame, size, dt_s) for frame in sequence])


@settings(deadline=None)
@given(points)
def test_constant_in_constant_out(still: np.ndarray) -> None:
    assert np.allclose(run(np.stack([still] * 5)), still)


@settings(deadline=None)
@given(sequences, st.floats(-500, 500), st.floats(-500, 500))
def test_shifted_input_gives_the_shifted_output(sequence: np.ndarray, dx: float, dy: float) -> None:
    shift = np.array([dx, dy])
    assert np.allclose(run(sequence + shift), run(sequence) + shift, atol=1e-6)


@settings(deadline=None)
@given(sequences, st.floats(0.05, 20))
def test_a_face_of_another_size_is_smoothed_alike(sequence: np.ndarray, scale: float) -> None:
    assert np.allclose(run(sequence * scale, 100.0 * scale), run(sequence) * scale, atol=1e-6 * max(1, scale))


@settings(deadline=None)
@given(sequences, st.floats(0, 2 * np.pi))
def test_a_turned_picture_is_smoothed_alike(sequence: np.ndarray, angle: float) -> None:
    turn = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    assert np.allclose(run(sequence @ turn.T), run(sequence) @ turn.T, atol=1e-6)


@settings(deadline=None)
@given(sequences)
def test_output_stays_within_the_range_of_the_input(sequence: np.ndarray) -> None:
    out = run(sequence)
    assert (out >= sequence.min(axis=0) - 1e-9).all() and (out <= sequence.max(axis=0) + 1e-9).all()


@pytest.mark.parametrize("size", [60.0, 600.0])
def test_jitter_of_a_still_face_drops_to_a_third(size: float) -> None:
    rng = np.random.default_rng(0)
    noisy = np.array([100.0, 50.0]) + rng.normal(0, 0.0015 * size, (300, 5, 2))  # what the mesh net shows on noise
    raw_step, step = (np.abs(np.diff(x[30:], axis=0)).mean() for x in (noisy, run(noisy, size)))
    assert step < raw_step / 3


@pytest.mark.parametrize("fps", [15, 30, 60])
def test_lag_behind_a_fast_face_is_below_two_percent_of_it(fps: int) -> None:
    size, speed = 200.0, 2.0  # two face sizes per second: a quick turn of the head
    x = np.cumsum(np.full(fps, speed * size / fps))
    moving = np.stack([np.stack([x, np.zeros(fps)], axis=1)] * 3, axis=1)
    lag = moving[-1, 0, 0] - run(moving, size, 1 / fps)[-1, 0, 0]
    assert 0 <= lag < 0.02 * size


def test_reset_takes_the_next_points_as_they_are() -> None:
    smooth = OneEuroFilter()
    smooth(np.zeros((2, 2)), 10.0, DT_S)
    smooth.reset()
    assert np.array_equal(smooth(np.ones((2, 2)), 10.0, DT_S), np.ones((2, 2)))


def test_time_must_pass() -> None:
    smooth = OneEuroFilter()
    smooth(np.zeros((2, 2)), 10.0, DT_S)
    with pytest.raises(ValueError, match="dt_s"):
        smooth(np.zeros((2, 2)), 10.0, 0.0)


def test_smoothing_factor_is_the_papers() -> None:
    tau = 1 / (2 * np.pi * 3.0)
    assert smoothing_factor(3.0, DT_S) == pytest.approx(1 / (1 + tau / DT_S))
