"""One restoration as one OpenVINO graph computes what numpy and the denoiser compute step by step."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from idm_rt.backends import openvino_backend
from idm_rt.backends.openvino_backend import OpenVinoBackend
from idm_rt.backends.openvino_sampler import sampler_graph
from idm_rt.diffusion import sample
from idm_rt.errors import EngineError
from idm_rt.model_store import find_model
from idm_rt.restorer import to_planes

LEVELS = 2e-3  # 8-bit steps; both are f32 and differ in the order of their sums


def by_numpy(backend: OpenVinoBackend, crops: np.ndarray, eps: np.ndarray, steps: int) -> np.ndarray:
    y = to_planes(crops)
    x0 = np.clip(sample(backend.denoise, y, eps, steps), -1, 1)
    return ((x0 - y) * 127.5).transpose(0, 2, 3, 1)


@pytest.fixture(scope="module")
def backend(tiny_folder: Path) -> OpenVinoBackend:
    manifest = find_model(tiny_folder)
    return OpenVinoBackend(manifest.verified_file("onnx"), manifest.crop_size, threads=1, precision="f32")


@pytest.fixture
def eps(backend: OpenVinoBackend) -> np.ndarray:
    return np.random.default_rng(1).standard_normal((1, 3, backend.size, backend.size), dtype=np.float32)


@pytest.mark.parametrize("steps", [1, 2, 4])
def test_the_graph_is_the_sampler(
    steps: int, tiny_folder: Path, backend: OpenVinoBackend, eps: np.ndarray, face_crops: np.ndarray
) -> None:
    graph = sampler_graph(
        openvino_backend.the_core(), find_model(tiny_folder).verified_file("onnx"), backend.size, eps, steps
    )
    request = openvino_backend._request(openvino_backend.the_core(), graph, 1, "f32")
    wanted = by_numpy(backend, face_crops[:1], eps, steps)
    assert np.abs(wanted).max() > 1  # the model does something
    np.testing.assert_allclose(request.infer([face_crops[:1]])[0], wanted, atol=LEVELS)


def test_a_crop_gives_the_same_in_any_batch(backend: OpenVinoBackend, eps: np.ndarray, face_crops: np.ndarray) -> None:
    sampler = backend.on_device(1)
    assert sampler is not None
    together = sampler.correction(face_crops, eps, 1)
    np.testing.assert_allclose(together, by_numpy(backend, face_crops, eps, 1), atol=LEVELS)
    for i in range(len(face_crops)):
        np.testing.assert_array_equal(sampler.correction(face_crops[i : i + 1], eps, 1)[0], together[i])


def test_other_noise_gives_another_graph(backend: OpenVinoBackend, eps: np.ndarray, face_crops: np.ndarray) -> None:
    sampler = backend.on_device(1)
    assert sampler is not None
    first = sampler.correction(face_crops[:1], eps, 1)
    other = 3 * eps
    np.testing.assert_allclose(
        sampler.correction(face_crops[:1], other, 1), by_numpy(backend, face_crops[:1], other, 1), atol=LEVELS
    )
    np.testing.assert_array_equal(sampler.correction(face_crops[:1], eps, 1), first)


def test_several_steps_and_bf16_go_step_by_step(tiny_folder: Path, backend: OpenVinoBackend) -> None:
    assert backend.on_device(2) is None and backend.on_device(4) is None
    manifest = find_model(tiny_folder)
    with OpenVinoBackend(manifest.verified_file("onnx"), manifest.crop_size, threads=1, precision="bf16") as half:
        assert half.on_device(1) is None


def test_a_closed_backend_is_a_bug_and_nan_an_error(tiny_folder: Path, eps: np.ndarray, face_crops: np.ndarray) -> None:
    manifest = find_model(tiny_folder)
    made = OpenVinoBackend(manifest.verified_file("onnx"), manifest.crop_size, threads=1, precision="f32")
    made.correction(face_crops[:1], eps, 1)

    class Broken:
        def infer(self, *_: object, **__: object) -> list[np.ndarray]:
            return [np.full((1, made.size, made.size, 3), np.nan, np.float32)]

    made._whole = Broken()  # type: ignore[assignment]
    with pytest.raises(EngineError, match="not finite"):
        made.correction(face_crops[:1], eps, 1)
    made.close()
    with pytest.raises(ValueError, match="closed"):
        made.correction(face_crops[:1], eps, 1)
