from __future__ import annotations

import numpy as np
import pytest

from idm_rt.blending import BlendOptions
from idm_rt.blending.motion import (
    FLOW_SIZE,
    GATE_SIZE,
    FlowEstimator,
    crop_shift_px,
    grey_of,
    lag_gate,
    photometric_gate,
    stillness,
    warp_by_flow,
)

OPTIONS = BlendOptions()


@pytest.mark.parametrize(("dx", "dy"), [(0, 0), (3, 0), (-5, 2), (8, -6)])
def test_the_flow_finds_a_known_shift(make_texture, dx, dy):
    scene = make_texture(1)
    now, before = scene[64:320, 64:320], scene[64 + dy : 320 + dy, 64 + dx : 320 + dx]
    flow = FlowEstimator().flow(grey_of(now), grey_of(before))
    inner = flow[24:104, 24:104].reshape(-1, 2)
    # A pixel at x now was at x - dx before; the flow's grid has half the crop's pixels.
    np.testing.assert_allclose(np.median(inner, axis=0), [-dx / 2, -dy / 2], atol=0.15)


def test_warp_by_flow_pulls_from_where_the_flow_points():
    image = np.random.default_rng(0).integers(0, 255, (FLOW_SIZE, FLOW_SIZE), np.uint8)
    flow = np.zeros((FLOW_SIZE, FLOW_SIZE, 2), np.float32)
    np.testing.assert_array_equal(warp_by_flow(image, flow), image)
    flow[..., 0], flow[..., 1] = 2.0, -1.0
    np.testing.assert_array_equal(warp_by_flow(image, flow)[5:-5, 5:-5], image[4:-6, 7:-3])


def test_a_flow_of_another_grid_is_scaled():
    image = np.random.default_rng(0).normal(size=(2 * FLOW_SIZE, 2 * FLOW_SIZE, 3)).astype(np.float32)
    flow = np.full((FLOW_SIZE, FLOW_SIZE, 2), 1.5, np.float32)  # 3 px of the larger picture
    np.testing.assert_allclose(warp_by_flow(image, flow)[4:-4, 4:-4], image[7:-1, 7:-1], atol=1e-5)


def grey(level: float) -> np.ndarray:
    return np.full((FLOW_SIZE, FLOW_SIZE), level, np.uint8)


@pytest.mark.parametrize(
    ("change", "low", "high"),
    [(0, 1.0, 1.0), (1, 1.0, 1.0), (3, 0.9, 1.0), (6, 0.7, 0.8), (8, 0.2, 0.3), (12, 0.0, 0.0), (100, 0.0, 0.0)],
)
def test_a_change_of_the_whole_picture_closes_the_gate_beyond_the_noise_cap(change, low, high):
    gate = photometric_gate(grey(100), grey(100 + change), OPTIONS)
    assert gate.shape == (GATE_SIZE, GATE_SIZE)
    assert low <= gate.min() <= gate.max() <= high


def test_a_local_change_closes_the_gate_there_only():
    before = grey(100)
    before[40:80, 40:80] += 8
    gate = photometric_gate(grey(100), before, OPTIONS)
    assert gate[22:38, 22:38].max() == 0.0
    assert gate[:16].min() == 1.0 and gate[45:].min() == 1.0


def test_noise_opens_the_gate_to_itself():
    """The same disagreement that is motion in a clean picture is noise in a noisy one."""
    rng = np.random.default_rng(0)
    noisy = [np.clip(100 + rng.normal(0, 4, (FLOW_SIZE, FLOW_SIZE)), 0, 255).astype(np.uint8) for _ in range(2)]
    assert photometric_gate(noisy[0], noisy[1], OPTIONS).mean() > 0.6
    patch = grey(100)
    patch[60:70, 60:70] += 9
    assert photometric_gate(grey(100), patch, OPTIONS)[31:34, 31:34].max() == 0.0


def test_a_crop_that_follows_the_head_has_moved_over_the_frame():
    before = np.array([[2.0, 0.0, -30.0], [0.0, 2.0, 10.0]])
    assert crop_shift_px(before, before, 256) == pytest.approx(0.0, abs=1e-9)
    later = before + np.array([[0.0, 0.0, 3.0], [0.0, 0.0, -4.0]])
    assert crop_shift_px(before, later, 256) == pytest.approx(5.0)
    grown = np.array(
        [[2.02, 0.0, 0.0], [0.0, 2.02, 0.0]]
    )  # by 1 % about a corner: the centre moves by 1.28 px each way
    start = np.array([[2.0, 0.0, 0.0], [0.0, 2.0, 0.0]])
    assert crop_shift_px(start, grown, 256) == pytest.approx(0.01 * 128 * 2**0.5, rel=0.05)


def test_noise_is_still_and_a_moving_head_is_not(make_texture):
    rng = np.random.default_rng(4)
    scene = make_texture(1)[64:320, 64:320]
    noisy = [np.clip(scene + rng.normal(0, 3, scene.shape), 0, 255).astype(np.uint8) for _ in range(2)]
    flow = FlowEstimator().flow(grey_of(noisy[0]), grey_of(noisy[1]))
    still, whole = stillness(flow, 0.0, 256, OPTIONS)
    assert still.shape == (GATE_SIZE, GATE_SIZE) and still.dtype == np.float32
    assert whole > 0.9 and still[16:48, 16:48].mean() > 0.9
    assert stillness(flow, 1.5, 256, OPTIONS)[1] == 0.0  # its crop follows it
    assert stillness(flow + np.float32(0.5), 0.0, 256, OPTIONS)[1] == 0.0  # 0.7 px of the flow's grid


def test_a_mouth_moves_in_a_face_that_is_still():
    flow = np.zeros((FLOW_SIZE, FLOW_SIZE, 2), np.float32)
    flow[84:100, 48:80, 1] = 1.0
    still, whole = stillness(flow, 0.0, 256, OPTIONS)
    assert whole == 1.0 and still[44:48, 28:36].max() == 0.0 and still[10:36].min() == 1.0


def test_a_past_that_lags_behind_is_told_from_flicker(make_band_noise):
    fresh = make_band_noise(np.random.default_rng(0), 4.0)
    flickering = fresh + make_band_noise(np.random.default_rng(1), 1.5)
    assert lag_gate(flickering, fresh, OPTIONS)[8:56, 8:56].mean() > 0.97
    behind = flickering.copy()
    behind[80:160, 80:160] += 3.0
    gate = lag_gate(behind, fresh, OPTIONS)
    assert gate[24:36, 24:36].max() < 0.1 and gate[48:].mean() > 0.97
