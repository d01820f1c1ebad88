"""The run-time half of TensorRT, on a stand-in for CUDA and for the library: it has not been run on a GPU.

The stand-in computes the plan's network, so results are compared with the reference; and it keeps CUDA's rules.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from fake_cuda import FakeCuda
from fake_tensorrt import fake_library, fake_plan
from tiny_model import SIZE

from idm_rt.backends import open_backend
from idm_rt.backends.base import EngineChoice
from idm_rt.backends.nvidia import Gpu
from idm_rt.backends.trt.backend import TensorRtBackend, open_plan
from idm_rt.backends.trt.cuda_api import CudaDevice, CudaError
from idm_rt.backends.trt.library import FLAVOURS, Library
from idm_rt.backends.trt.plan_key import PlanKey, plan_key
from idm_rt.backends.trt.plan_runner import PlanRefused
from idm_rt.backends.trt.plan_store import PlanStore
from idm_rt.errors import EngineError
from idm_rt.model_manifest import ModelManifest, load_manifest
from idm_rt.restorer import Restorer, to_planes


@pytest.fixture(params=["tensorrt", "tensorrt-rtx"])
def engine(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def manifest(tiny_folder: Path) -> ModelManifest:
    return load_manifest(tiny_folder)


@pytest.fixture
def cuda() -> Iterator[FakeCuda]:
    fake = FakeCuda()
    yield fake
    assert not (fake.device or fake.pinned or fake.graphs or fake.streams or fake.events), "something was not freed"


@pytest.fixture
def library(engine: str, cuda: FakeCuda) -> Library:
    return fake_library(engine, cuda)


@pytest.fixture
def key(engine: str, manifest: ModelManifest, gpu: Gpu) -> PlanKey:
    return plan_key(FLAVOURS[engine], "11.0.0", manifest, gpu)


@pytest.fixture
def plan(key: PlanKey, manifest: ModelManifest) -> bytes:
    return fake_plan(key, manifest.verified_file("onnx_fp16"))


@pytest.fixture
def backend(library: Library, plan: bytes, key: PlanKey, cuda: FakeCuda, tmp_path: Path) -> Iterator[TensorRtBackend]:
    with open_plan(library, PlanStore(tmp_path), key, plan, CudaDevice(cuda)) as opened:
        yield opened


@pytest.fixture
def crops(face_crops: np.ndarray) -> np.ndarray:
    return face_crops


@pytest.fixture
def reference(manifest: ModelManifest) -> Iterator[Restorer]:
    with Restorer(open_backend("onnxruntime", manifest), manifest) as restorer:
        yield restorer


def restorer_on(backend: TensorRtBackend, manifest: ModelManifest) -> Restorer:
    return Restorer(EngineChoice(backend, "test"), manifest)


def psnr_db(a: np.ndarray, b: np.ndarray) -> float:
    """Of pictures in 0..255."""
    return float(10 * np.log10(255.0**2 / max(np.mean((a.astype(np.float64) - b) ** 2), 1e-12)))


@pytest.mark.parametrize("steps", [1, 2, 4])
def test_all_steps_on_the_device_give_the_reference(
    steps: int, backend: TensorRtBackend, manifest: ModelManifest, reference: Restorer, crops: np.ndarray
) -> None:
    restorer = restorer_on(backend, manifest)
    expected = reference.correction(crops, steps)
    for _ in range(2):  # first uncaptured, then as a graph
        found = restorer.correction(crops, steps)
        assert found.dtype == np.float32 and found.shape == crops.shape
        assert psnr_db(found, expected) >= manifest.tolerance["fp16_db"]
    difference = restorer.restore(crops, steps).astype(int) - reference.restore(crops, steps)
    assert np.abs(difference).max() <= 1
    assert psnr_db(expected, np.zeros_like(expected)) < 40  # the corrections are not nothing


def test_a_batch_size_is_captured_once_then_only_launched(
    backend: TensorRtBackend, manifest: ModelManifest, crops: np.ndarray, cuda: FakeCuda, library: Library
) -> None:
    restorer = restorer_on(backend, manifest)
    restorer.correction(crops[:2])
    captured = set(cuda.graphs)
    memory = len(cuda.device), len(cuda.pinned)
    first = restorer.correction(crops[:2])
    kept = first.copy()
    second = restorer.correction(crops[1:])
    assert set(cuda.graphs) == captured and cuda.launches == 2
    assert (len(cuda.device), len(cuda.pinned)) == memory  # nothing is allocated per call
    np.testing.assert_array_equal(first, kept)  # the caller owns its result
    np.testing.assert_array_equal(second[0], first[1])  # the graph reads the new crops, and the batch changes nothing


def test_batches_between_other_batches_keep_their_results(
    backend: TensorRtBackend, manifest: ModelManifest, crops: np.ndarray
) -> None:
    restorer = restorer_on(backend, manifest)
    alone = [restorer.correction(crops[i : i + 1], 2)[0] for i in range(3)]
    for n in (3, 1, 2, 3, 1):
        np.testing.assert_allclose(restorer.correction(crops[:n], 2), alone[:n], atol=0.13)


def test_more_faces_than_the_plan_takes(backend: TensorRtBackend, manifest: ModelManifest, crops: np.ndarray) -> None:
    restorer = restorer_on(backend, manifest)
    many = np.concatenate([crops] * 7)  # 21: a batch of 16 and one of 5
    np.testing.assert_allclose(restorer.correction(many)[18:], restorer.correction(crops), atol=0.13)
    assert restorer.correction(many[:0]).shape == (0, SIZE, SIZE, 3)


def test_one_step_as_every_engine_offers_it(
    backend: TensorRtBackend, manifest: ModelManifest, crops: np.ndarray
) -> None:
    y = to_planes(crops)
    x_t = y + 0.08 * np.random.default_rng(3).standard_normal(y.shape, dtype=np.float32)
    with open_backend("onnxruntime", manifest).backend as reference:
        for t in (1.0, 0.25):
            found, expected = backend.denoise(x_t, y, t), reference.denoise(x_t, y, t)
            assert found.dtype == np.float32
            assert psnr_db(found * 127.5, expected * 127.5) >= manifest.tolerance["fp16_db"]
    assert backend.denoise(y[:0], y[:0], 1.0).shape == (0, 3, SIZE, SIZE)
    with pytest.raises(ValueError, match=r"must be \(N, 3"):
        backend.denoise(y[:, :1], y[:, :1], 1.0)


def test_the_noise_is_that_of_the_restorer(
    backend: TensorRtBackend, manifest: ModelManifest, crops: np.ndarray
) -> None:
    eps = np.random.default_rng(5).standard_normal((1, 3, SIZE, SIZE), dtype=np.float32)
    first = backend.correction(crops, eps, 1)
    assert np.abs(backend.correction(crops, -eps, 1) - first).max() > 0.5
    np.testing.assert_array_equal(backend.correction(crops, eps, 1), first)


def test_an_output_that_is_not_finite_is_an_error_and_leaves_no_trace(
    backend: TensorRtBackend, manifest: ModelManifest, crops: np.ndarray
) -> None:
    restorer = restorer_on(backend, manifest)
    good = restorer.correction(crops, 2)
    bad = np.full((1, 3, SIZE, SIZE), np.nan, np.float32)
    with pytest.raises(EngineError, match=r"engine tensorrt.* \(fp16\) gave values that are not finite"):
        backend.correction(crops, bad, 2)
    np.testing.assert_array_equal(restorer.correction(crops, 2), good)


def test_a_failure_while_running_names_the_engine(
    backend: TensorRtBackend, manifest: ModelManifest, crops: np.ndarray, library: Library
) -> None:
    library.api.machine.fail = "cudaErrorLaunchFailure in node conv1"
    with pytest.raises(EngineError, match=r"engine tensorrt.* failed while running: cudaErrorLaunchFailure in node"):
        restorer_on(backend, manifest).correction(crops)


def test_without_graphs_it_goes_on_with_a_warning(
    backend: TensorRtBackend,
    manifest: ModelManifest,
    crops: np.ndarray,
    reference: Restorer,
    cuda: FakeCuda,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    monkeypatch.setattr(cuda, "cudaGraphInstantiate", lambda graph, flags: (1, None))
    restorer = restorer_on(backend, manifest)
    results = [restorer.correction(crops, 2) for _ in range(2)]
    np.testing.assert_array_equal(*results)
    assert psnr_db(results[0], reference.correction(crops, 2)) >= 50 and cuda.launches == 0
    assert "no CUDA graph for 3 faces, 2 steps" in caplog.text


def test_closing_frees_everything_twice_is_fine(backend: TensorRtBackend, crops: np.ndarray) -> None:
    backend.close()
    backend.close()  # the fixture `cuda` looks for what was left
    with pytest.raises(ValueError, match="closed"):
        backend.correction(crops, np.zeros((1, 3, SIZE, SIZE), np.float32), 1)


def test_too_little_memory(library: Library, plan: bytes, key: PlanKey, cuda: FakeCuda, tmp_path: Path) -> None:
    cuda.limit = 100_000
    with pytest.raises(EngineError, match=r"engine tensorrt.* could not be opened: cudaMalloc: out of memory \(2\)"):
        open_plan(library, PlanStore(tmp_path), key, plan, CudaDevice(cuda))


@pytest.mark.parametrize(
    ("damage", "reason"),
    [
        (lambda plan: plan[:-1], "malformed engine"),
        (lambda plan: b"x" * 500, "malformed engine"),
        (lambda plan: plan.replace(b"11.0.0", b"10.9.9"), "version mismatch"),
        (lambda plan: plan.replace(b'"gpu": "', b'"gpu":"X'), "unsupported cc"),
    ],
)
def test_a_plan_of_another_kind_is_refused_with_the_reason(
    damage: object, reason: str, library: Library, plan: bytes, key: PlanKey, cuda: FakeCuda, tmp_path: Path
) -> None:
    with pytest.raises(PlanRefused, match=rf"^{reason} \(the plan cannot be read\)"):
        open_plan(library, PlanStore(tmp_path), key, damage(plan), CudaDevice(cuda))


def test_what_rtx_compiles_at_run_time_is_kept(
    library: Library, plan: bytes, key: PlanKey, cuda: FakeCuda, tmp_path: Path
) -> None:
    store = PlanStore(tmp_path)
    open_plan(library, store, key, plan, CudaDevice(cuda)).close()
    if key.engine == "tensorrt":
        assert not store.jit_path(key).exists()
        return
    assert store.jit_path(key).read_bytes() == b"Fake GPU:1"
    with open_plan(library, store, key, plan, CudaDevice(cuda)) as again:
        assert again.jit_cache() == b"Fake GPU:2"  # one was loaded, one was added
    store.jit_path(key).write_bytes(b"Other GPU:9")
    with open_plan(library, store, key, plan, CudaDevice(cuda)) as other:
        assert other.jit_cache() == b"Fake GPU:1"


def test_tensors_on_the_gpu_are_bound_as_they_are(
    backend: TensorRtBackend,
    manifest: ModelManifest,
    crops: np.ndarray,
    cuda: FakeCuda,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A tensor whose memory is the stand-in's: its address goes into the plan, and no pixel is copied."""
    import torch

    eps = np.random.default_rng(5).standard_normal((1, 3, SIZE, SIZE), dtype=np.float32)
    expected = backend.correction(crops, eps, 2)
    tensors = FakeTensors(cuda, monkeypatch)
    given = tensors.put(torch.from_numpy(crops))
    copies = cuda.copies
    found = backend.correction(given, eps, 2)
    assert cuda.copies == copies + 1  # the level of each face
    np.testing.assert_array_equal(found.tensor.float().numpy(), expected)
    with pytest.raises(TypeError, match="must lie on the GPU.*found cpu"):
        backend.correction(torch.from_numpy(crops), eps, 2)
    tensors.free()


class FakeTensors:
    """Torch tensors that claim to be on the GPU; ``torch.empty`` makes more of them."""

    def __init__(self, cuda: FakeCuda, monkeypatch: pytest.MonkeyPatch) -> None:
        import torch

        self._cuda, self._addresses = cuda, []
        real = torch.empty
        monkeypatch.setattr(torch, "empty", lambda shape, dtype, device: self.put(real(shape, dtype=dtype)))
        stream = SimpleNamespace(synchronize=lambda: None)
        monkeypatch.setattr(torch.cuda, "current_stream", lambda device: stream)

    def put(self, tensor: object) -> FakeTensor:
        status, address = self._cuda.cudaMalloc(tensor.numel() * tensor.element_size())
        assert status == 0
        self._addresses.append(address)
        return FakeTensor(tensor, address, self._cuda.device[address])

    def free(self) -> None:
        for address in self._addresses:
            self._cuda.cudaFree(address)


class FakeTensor:
    def __init__(self, tensor: object, address: int, memory: object) -> None:
        import torch

        self.device = SimpleNamespace(type="cuda")
        self.tensor = torch.frombuffer(memory, dtype=tensor.dtype).reshape(tensor.shape)
        self.tensor.copy_(tensor)
        self.shape, self.dtype, self._start = tensor.shape, tensor.dtype, address

    def __len__(self) -> int:
        return len(self.tensor)

    def __getitem__(self, part: slice) -> SimpleNamespace:
        return self.tensor[part]

    def contiguous(self) -> FakeTensor:
        return self


def test_no_gpu_in_words() -> None:
    with pytest.raises(EngineError, match=r"^no NVIDIA GPU can be used here: cudaSetDevice: CUDA driver version is"):
        CudaDevice(FakeCuda(driver=False))


def test_runs_are_timed_by_the_events_of_the_gpu(
    backend: TensorRtBackend, manifest: ModelManifest, crops: np.ndarray, cuda: FakeCuda
) -> None:
    """On the stand-in a copy takes a millisecond: one in and two out, for each part of a batch."""
    restorer = restorer_on(backend, manifest)
    restorer.correction(crops)
    assert not cuda.events  # nobody asked
    clock = restorer.device_clock()
    assert clock is not None and clock is restorer.device_clock() and clock.covers == "copies both ways and all steps"
    assert clock.take_ms() is None
    for _ in range(2):
        restorer.correction(crops)
        assert clock.take_ms() == 3.0
    made = len(cuda.events)
    many = np.concatenate([crops] * 7)  # 21: a batch of 16 and one of 5
    restorer.correction(many)  # both graphs are recorded in this call: it is not timed
    clock.take_ms()
    restorer.correction(many)
    assert clock.take_ms() == 6.0 and len(cuda.events) == made + 2  # events are used again


def test_a_failed_call_leaves_the_stream_usable() -> None:
    cuda = FakeCuda()
    device = CudaDevice(cuda)
    with pytest.raises(CudaError, match="cudaMalloc"):
        device.capture(lambda: device.allocate(16) and None)
    device.launch(device.capture(lambda: None))
    assert cuda.launches == 1
    device.close()
