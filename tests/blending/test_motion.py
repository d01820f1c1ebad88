from __future__ import annotations

import numpy as np
import pytest

from idm_rt.blending import BlendOptions
from idm_rt.blending.motion import FLOW_SIZE, GATE_SIZE, FlowEstimator, grey_of, photometric_gate, warp_by_flow

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
    [(0, 1.0, 1.0), (1, 1.0, 1.0), (3, 0.9, 1.0), (6, 0.8, 0.9), (8, 0.45, 0.55), (12, 0.0, 0.0), (100, 0.0, 0.0)],
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
