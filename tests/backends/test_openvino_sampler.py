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
    request = openvino_backend.compile_graph(openvino_backend.the_core(), graph, 1, "f32")
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


def test_several_steps_go_step_by_step(backend: OpenVinoBackend) -> None:
    assert backend.on_device(2) is None and backend.on_device(4) is None


@pytest.mark.skipif(not openvino_backend.has_bf16(openvino_backend.the_core()), reason="this CPU has no bf16")
def test_the_graph_in_bf16_is_within_the_tolerance(
    tiny_folder: Path, backend: OpenVinoBackend, eps: np.ndarray, face_crops: np.ndarray
) -> None:
    manifest = find_model(tiny_folder)
    wanted = by_numpy(backend, face_crops, eps, 1)
    with OpenVinoBackend(manifest.verified_file("onnx"), manifest.crop_size, threads=1, precision="bf16") as half:
        error = half.correction(face_crops, eps, 1) - wanted
    assert np.abs(error).max() > 0  # it is another arithmetic
    assert 10 * np.log10(255.0**2 / np.mean(error**2)) >= manifest.tolerance["bf16_db"]


@pytest.mark.parametrize(
    ("bf16", "features", "has_int8", "chosen"),
    [
        (True, ["avx512_bf16", "amx_bf16"], True, "bf16"),
        (True, ["avx512_bf16", "amx_bf16"], False, "bf16"),
        (True, ["avx512_bf16"], True, "int8"),
        (True, ["avx512_bf16"], False, "bf16"),
        (False, ["avx2"], True, "int8"),
        (False, ["amx_bf16"], False, "f32"),  # OpenVINO does not use it
    ],
)
def test_the_precision_that_is_taken(bf16: bool, features: list[str], has_int8: bool, chosen: str) -> None:
    precision, reason = openvino_backend.best_precision(bf16, features, has_int8)
    assert precision == chosen and reason


def test_the_reason_of_the_precision_is_named(tiny_folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(openvino_backend, "has_bf16", lambda core: False)
    manifest = find_model(tiny_folder)
    with openvino_backend.open_model(manifest) as opened:
        assert (opened.precision, opened.precision_reason[:20]) == ("f32", "this CPU has no bf16")
    with openvino_backend.open_model(manifest, precision="f32") as opened:
        assert opened.precision_reason == "asked for"
    with pytest.raises(EngineError, match="this CPU does not compute bf16.*choose f32 or int8"):
        openvino_backend.open_model(manifest, precision="bf16")
    with pytest.raises(EngineError, match="'tiny' comes without an int8 file; choose f32 or bf16"):
        openvino_backend.open_model(manifest, precision="int8")


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
