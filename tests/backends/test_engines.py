"""What every engine promises, tried on each of them with a small exported network."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from tiny_model import SIZE, write_manifest

from idm_rt.backends import Backend, open_backend
from idm_rt.errors import EngineError, ModelError
from idm_rt.model_manifest import load_manifest
from idm_rt.restorer import to_planes

ENGINES = ["onnxruntime", "openvino", "torch"]


@pytest.fixture(params=ENGINES)
def backend(request: pytest.FixtureRequest, tiny_folder: Path) -> Iterator[Backend]:
    with open_backend(request.param, load_manifest(tiny_folder), precision="f32").backend as opened:
        yield opened


@pytest.fixture(scope="module")
def batch(face_crops: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    y = to_planes(face_crops)
    return y + 0.08 * np.random.default_rng(3).standard_normal(y.shape, dtype=np.float32), y


def test_names_itself(backend: Backend) -> None:
    assert backend.name in ENGINES
    assert backend.precision == "f32"
    assert backend.size == SIZE


def test_shape_type_and_owner_of_the_result(backend: Backend, batch: tuple[np.ndarray, np.ndarray]) -> None:
    x_t, y = batch
    first = backend.denoise(x_t, y, 1.0)
    kept = first.copy()
    assert first.shape == y.shape and first.dtype == np.float32 and first.flags.c_contiguous
    backend.denoise(-x_t, -y, 0.5)
    np.testing.assert_array_equal(first, kept)  # a later call must not write into an earlier result


def test_result_does_not_depend_on_the_batch(backend: Backend, batch: tuple[np.ndarray, np.ndarray]) -> None:
    x_t, y = batch
    together = backend.denoise(x_t, y, 0.5)
    for i in reversed(range(len(y))):
        alone = backend.denoise(x_t[i : i + 1], y[i : i + 1], 0.5)[0]
        np.testing.assert_allclose(alone, together[i], atol=2e-5)


def test_same_input_same_output(backend: Backend, batch: tuple[np.ndarray, np.ndarray]) -> None:
    x_t, y = batch
    np.testing.assert_array_equal(backend.denoise(x_t, y, 1.0), backend.denoise(x_t, y, 1.0))


def test_arrays_in_another_memory_order(backend: Backend, batch: tuple[np.ndarray, np.ndarray]) -> None:
    x_t, y = batch
    strided = np.ascontiguousarray(y.transpose(0, 2, 3, 1)).transpose(0, 3, 1, 2)
    np.testing.assert_allclose(backend.denoise(x_t, strided, 1.0), backend.denoise(x_t, y, 1.0), atol=1e-6)


def test_empty_batch(backend: Backend) -> None:
    empty = np.empty((0, 3, SIZE, SIZE), np.float32)
    assert backend.denoise(empty, empty, 1.0).shape == (0, 3, SIZE, SIZE)


@pytest.mark.parametrize("shape", [(1, 3, SIZE, SIZE + 8), (1, 1, SIZE, SIZE), (3, SIZE, SIZE)])
def test_wrong_shape(backend: Backend, shape: tuple[int, ...]) -> None:
    bad = np.zeros(shape, np.float32)
    with pytest.raises(ValueError, match=rf"must be \(N, 3, {SIZE}, {SIZE}\), found"):
        backend.denoise(bad, bad, 1.0)


def test_closed(backend: Backend) -> None:
    backend.close()
    backend.close()
    one = np.zeros((1, 3, SIZE, SIZE), np.float32)
    with pytest.raises(ValueError, match="closed"):
        backend.denoise(one, one, 1.0)


def test_warm_up_runs_each_batch_size(backend: Backend, monkeypatch: pytest.MonkeyPatch) -> None:
    sizes = []
    real = backend.denoise

    def count(x_t: np.ndarray, y: np.ndarray, t: float) -> np.ndarray:
        sizes.append(len(y))
        return real(x_t, y, t)

    monkeypatch.setattr(backend, "denoise", count)
    backend.warm_up((1, 2))
    assert sizes == [1, 2]


@pytest.mark.parametrize("engine", ENGINES)
def test_unknown_precision(engine: str, tiny_folder: Path) -> None:
    with pytest.raises(EngineError, match=f"engine {engine} has no precision 'int3'; choose .*f32"):
        open_backend(engine, load_manifest(tiny_folder), precision="int3")


@pytest.mark.parametrize("engine", ["onnxruntime", "openvino"])  # torch's threads are those of the whole process
def test_threads_change_nothing_but_time(engine: str, tiny_folder: Path, batch: tuple[np.ndarray, np.ndarray]) -> None:
    results = []
    for threads in (1, 2):
        with open_backend(engine, load_manifest(tiny_folder), threads, "f32").backend as backend:
            results.append(backend.denoise(*batch, 1.0))
    np.testing.assert_allclose(results[0], results[1], atol=2e-5)


@pytest.mark.parametrize("engine", ["onnxruntime", "openvino"])
def test_a_file_that_is_no_onnx(engine: str, tmp_path: Path) -> None:
    """Its hash is right, so only the engine can find out."""
    folder = tmp_path / "broken"
    folder.mkdir()
    (folder / "model.onnx").write_bytes(b"this is not a network" * 100)
    write_manifest(folder)
    with pytest.raises(EngineError, match=f"^engine {engine} could not be opened: .+; try another one with --engine$"):
        open_backend(engine, load_manifest(folder))


@pytest.mark.parametrize("engine", ["onnxruntime", "openvino"])
def test_a_network_for_another_task(engine: str, tmp_path: Path) -> None:
    from onnx import TensorProto, helper, save

    folder = tmp_path / "other"
    folder.mkdir()
    ends = [helper.make_tensor_value_info(name, TensorProto.FLOAT, [1, 3, SIZE, SIZE]) for name in ("a", "b")]
    graph = helper.make_graph([helper.make_node("Identity", ["a"], ["b"])], "other", ends[:1], ends[1:])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)
    save(model, str(folder / "model.onnx"))
    write_manifest(folder)
    with pytest.raises((EngineError, ModelError), match=r"(inputs and outputs \{'a'.*expected|'x_t' is not found)"):
        open_backend(engine, load_manifest(folder))


@pytest.mark.parametrize("engine", ENGINES)
def test_a_file_of_another_hash_is_never_opened(engine: str, tiny_folder: Path, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(tiny_folder, tmp_path / "copy"))
    name = "model.safetensors" if engine == "torch" else "model.onnx"
    data = bytearray((folder / name).read_bytes())
    data[-1] ^= 1
    (folder / name).write_bytes(data)
    with pytest.raises(ModelError, match=f"{name} has sha256 [0-9a-f]{{64}}, expected [0-9a-f]{{64}}; restore"):
        open_backend(engine, load_manifest(folder))


def test_torch_takes_and_returns_tensors(tiny_folder: Path, batch: tuple[np.ndarray, np.ndarray]) -> None:
    import torch

    x_t, y = batch
    with open_backend("torch", load_manifest(tiny_folder), precision="f32").backend as backend:
        x0 = backend.denoise(torch.from_numpy(x_t), torch.from_numpy(y), 1.0)
        assert isinstance(x0, torch.Tensor)
        np.testing.assert_allclose(x0.cpu().numpy(), backend.denoise(x_t, y, 1.0), atol=1e-6)


def test_a_failure_while_running_names_the_engine(
    backend: Backend, batch: tuple[np.ndarray, np.ndarray], monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object, **__: object) -> None:
        raise RuntimeError("Exception from core.cpp:84:\nout of memory")

    class Broken:
        infer = run = __call__ = fail

    attribute = {"openvino": "_request", "onnxruntime": "_session", "torch": "_net"}[backend.name]
    monkeypatch.setattr(backend, attribute, Broken())
    with pytest.raises(EngineError, match=f"engine {backend.name} .* failed while running: out of memory; try another"):
        backend.denoise(*batch, 1.0)
