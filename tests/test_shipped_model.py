"""The shipped restorer on a face it never learnt from (NASA's public-domain portrait): it helps, and does no harm."""

from __future__ import annotations

import cv2
import numpy as np
import pytest
from skimage.data import astronaut

from export.degradations import LEVELS, degrade
from export.metrics import psnr, ssim
from idm_rt.errors import ModelError
from idm_rt.geometry import align_matrix, compose, crop_face
from idm_rt.model_store import find_model
from idm_rt.restorer import open_restorer

try:
    find_model()
except ModelError as missing:
    pytest.skip(f"no shipped model: {missing}", allow_module_level=True)

EYES_NOSE_MOUTH = np.array([[203.7, 101.2], [246.3, 103.4], [223.8, 126.3], [202.1, 139.3], [244.2, 140.6]])


@pytest.fixture(scope="module")
def restorer():
    with open_restorer() as opened:
        yield opened


@pytest.fixture(scope="module")
def canvas():
    margin = np.array([[1.0, 0.0, 64.0], [0.0, 1.0, 64.0]])
    return crop_face(astronaut(), compose(margin, align_matrix(EYES_NOSE_MOUTH)), 384)


@pytest.fixture(scope="module")
def pairs(canvas):
    return [degrade(canvas, LEVELS["call-medium"], np.random.default_rng(seed), augment=False) for seed in range(12)]


@pytest.mark.parametrize("steps", [1, 2, 4])
def test_a_bad_call_comes_out_closer_to_the_truth(restorer, pairs, steps):
    restored = restorer.restore(np.stack([pair.degraded for pair in pairs]), steps)
    gains = [psnr(r, p.clean) - psnr(p.degraded, p.clean) for r, p in zip(restored, pairs, strict=True)]
    likeness = [ssim(r, p.clean) - ssim(p.degraded, p.clean) for r, p in zip(restored, pairs, strict=True)]
    assert np.mean(gains) > 0.15
    assert min(gains) > -1.0  # the worst of them is nearly unrecognisable: sharper there means farther in PSNR
    assert np.mean(likeness) > -0.01  # SSIM rises on the model card's faces, but not on this one


def test_detail_comes_back_where_the_truth_has_it(restorer, pairs):
    """More fine structure than the input, and it correlates with the truth: not noise, not plastic."""

    def fine(image):
        grey = cv2.cvtColor(image, cv2.COLOR_RGB2GRAY).astype(np.float32)
        return (cv2.GaussianBlur(grey, (0, 0), 1.0) - cv2.GaussianBlur(grey, (0, 0), 4.0))[48:224, 48:208]

    restored = restorer.restore(np.stack([pair.degraded for pair in pairs]))
    before = np.mean([np.corrcoef(fine(p.degraded).ravel(), fine(p.clean).ravel())[0, 1] for p in pairs])
    after = np.mean(
        [np.corrcoef(fine(r).ravel(), fine(p.clean).ravel())[0, 1] for r, p in zip(restored, pairs, strict=True)]
    )
    energy = np.mean([fine(r).std() / fine(p.degraded).std() for r, p in zip(restored, pairs, strict=True)])
    assert after > before and energy > 1.02


def test_a_good_face_is_left_alone(restorer, canvas):
    sharp = np.ascontiguousarray(canvas[64:320, 64:320])
    once = restorer.restore(sharp[None])
    twice = restorer.restore(once)
    assert psnr(once[0], sharp) > 32.0
    assert psnr(twice[0], once[0]) > 34.0


def test_colour_and_brightness_stay(restorer, pairs):
    batch = np.stack([pair.degraded for pair in pairs])
    shift = restorer.correction(batch).mean(axis=(1, 2))
    assert np.abs(shift).max() < 3.0


def test_equal_faces_give_equal_results_in_any_batch(restorer, pairs):
    batch = np.stack([pair.degraded for pair in pairs[:3]])
    alone = np.concatenate([restorer.restore(crop[None]) for crop in batch])
    assert np.abs(alone.astype(int) - restorer.restore(batch)).max() <= 1


def test_the_files_are_small_enough_to_ship(restorer):
    files = restorer.manifest.files
    assert sum(record.size for kind, record in files.items() if kind.startswith("onnx")) <= 24 * 2**20
