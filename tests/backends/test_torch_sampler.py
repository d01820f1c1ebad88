"""The GPU path of torch, on the CPU: the same tensors and operations, with a stand-in for the capture of a graph."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from tiny_model import SIZE

from idm_rt.backends import open_backend
from idm_rt.backends.base import EngineChoice
from idm_rt.backends.torch_backend import TorchBackend
from idm_rt.errors import EngineError
from idm_rt.model_manifest import ModelManifest, load_manifest
from idm_rt.network import load_denoiser
from idm_rt.restorer import Restorer


class Recorder:
    """A capture as CUDA's: work that is replayed on the tensors it was recorded with."""

    def __init__(self) -> None:
        self.captures = self.replays = 0

    def __call__(self, work: Callable[[], None]) -> Callable[[], None]:
        self.captures += 1
        work()

        def replay() -> None:
            self.replays += 1
            work()

        return replay


@pytest.fixture
def recorder() -> Recorder:
    return Recorder()


@pytest.fixture
def manifest(tiny_folder: Path) -> ModelManifest:
    return load_manifest(tiny_folder)


@pytest.fixture(params=["f32", "fp16"])
def backend(request: pytest.FixtureRequest, manifest: ModelManifest, recorder: Recorder) -> Iterator[TorchBackend]:
    net = load_denoiser(manifest.verified_file("weights"), manifest.network)
    with TorchBackend(net, SIZE, precision=request.param, device="cpu", capture=recorder) as opened:
        yield opened


@pytest.fixture
def reference(manifest: ModelManifest) -> Iterator[Restorer]:
    with Restorer(open_backend("onnxruntime", manifest), manifest) as restorer:
        yield restorer


def psnr_db(a: np.ndarray, b: np.ndarray) -> float:
    return float(10 * np.log10(255.0**2 / max(np.mean((a.astype(np.float64) - b) ** 2), 1e-12)))


def test_all_steps_give_the_reference(
    backend: TorchBackend, manifest: ModelManifest, reference: Restorer, face_crops: np.ndarray, recorder: Recorder
) -> None:
    restorer = Restorer(EngineChoice(backend, "test"), manifest)
    for steps in (1, 2, 4):
        expected = reference.correction(face_crops, steps)
        for _ in range(2):
            found = restorer.correction(face_crops, steps)
            assert found.dtype == np.float32 and found.shape == face_crops.shape
            assert psnr_db(found, expected) >= manifest.tolerance["fp16_db"]
    assert (recorder.captures, recorder.replays) == (3, 3)
    restored = restorer.restore(face_crops, 2).astype(int) - reference.restore(face_crops, 2)
    assert np.abs(restored).max() <= 1


def test_a_recorded_batch_reads_what_is_new(
    backend: TorchBackend, manifest: ModelManifest, face_crops: np.ndarray, recorder: Recorder
) -> None:
    restorer = Restorer(EngineChoice(backend, "test"), manifest)
    first = restorer.correction(face_crops[:2])
    kept = first.copy()
    second = restorer.correction(face_crops[1:])
    np.testing.assert_array_equal(first, kept)
    np.testing.assert_allclose(second[0], first[1], atol=0.13)
    eps = np.random.default_rng(5).standard_normal((1, 3, SIZE, SIZE), dtype=np.float32)
    other = backend.correction(face_crops[:2], eps, 1)
    assert np.abs(other - first).max() > 0.5 and recorder.captures == 1  # the same graph, with the new noise


def test_tensors_stay_tensors(backend: TorchBackend, face_crops: np.ndarray) -> None:
    eps = np.zeros((1, 3, SIZE, SIZE), np.float32)
    expected = backend.correction(face_crops, eps, 2)
    found = backend.correction(torch.from_numpy(face_crops), eps, 2)
    assert isinstance(found, torch.Tensor) and found.dtype == torch.float16
    np.testing.assert_array_equal(found.float().numpy(), expected)
    kept = found.clone()
    backend.correction(torch.from_numpy(255 - face_crops), eps, 2)
    assert torch.equal(found, kept)  # the caller owns it


def test_large_batches_are_not_recorded(backend: TorchBackend, face_crops: np.ndarray, recorder: Recorder) -> None:
    eps = np.zeros((1, 3, SIZE, SIZE), np.float32)
    many = np.concatenate([face_crops] * 11)
    np.testing.assert_allclose(backend.correction(many, eps, 1)[30:], backend.correction(face_crops, eps, 1), atol=0.13)
    assert recorder.captures == 1


def test_not_finite(backend: TorchBackend, face_crops: np.ndarray) -> None:
    with pytest.raises(EngineError, match="engine torch .* gave values that are not finite"):
        backend.correction(face_crops, np.full((1, 3, SIZE, SIZE), np.inf, np.float32), 1)


def test_closed_and_failing(backend: TorchBackend, face_crops: np.ndarray, monkeypatch: pytest.MonkeyPatch) -> None:
    eps = np.zeros((1, 3, SIZE, SIZE), np.float32)

    def fail(*_: object) -> None:
        raise RuntimeError("CUDA error: out of memory")

    with monkeypatch.context() as patch:
        patch.setattr(backend, "_net", fail)
        with pytest.raises(EngineError, match="engine torch .* failed while running: CUDA error: out of memory"):
            backend.correction(face_crops, eps, 1)
    backend.close()
    with pytest.raises(ValueError, match="closed"):
        backend.correction(face_crops, eps, 1)


def test_on_the_cpu_it_steps_like_every_engine(tiny_folder: Path) -> None:
    with open_backend("torch", load_manifest(tiny_folder)).backend as backend:
        assert (backend.on_device(1) is None) == (backend.device == "cpu")


def test_onnxruntime_asks_for_cuda_where_it_can(monkeypatch: pytest.MonkeyPatch) -> None:
    from idm_rt.backends import onnxruntime_backend as module

    assert module.providers(gpu=False) == ["CPUExecutionProvider"]
    monkeypatch.setattr(module.ort, "get_available_providers", lambda: ["CUDAExecutionProvider"])
    assert module.providers(gpu=True) == [("CUDAExecutionProvider", {"use_tf32": "0"}), "CPUExecutionProvider"]
    assert module.providers(gpu=False) == ["CPUExecutionProvider"]
