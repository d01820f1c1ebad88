"""Which engine is taken, in which order, and what is said about the others."""

from __future__ import annotations

import importlib.util
import logging
import os
import shutil
import subprocess
import sys
import threading
from pathlib import Path
from types import SimpleNamespace

import pytest
from tiny_model import write_manifest

from idm_rt.backends import Backend, open_backend, probe_engines, selection
from idm_rt.backends.swapping import SwappingBackend
from idm_rt.config import ENGINES
from idm_rt.errors import EngineError, ModelError
from idm_rt.model_manifest import ModelManifest, load_manifest

AUTO_ORDER = ["tensorrt", "tensorrt-rtx", "torch", "openvino", "onnxruntime"]


@pytest.fixture
def manifest(tiny_folder: Path) -> ModelManifest:
    return load_manifest(tiny_folder)


@pytest.fixture(autouse=True)
def no_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    """The tests do not depend on the machine's own GPU."""
    monkeypatch.setattr(selection, "cuda_device_count", lambda: 0)


def hide_packages(monkeypatch: pytest.MonkeyPatch, *names: str) -> None:
    """Make packages look as if they were not installed."""
    real = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util, "find_spec", lambda name, package=None: None if name in names else real(name, package)
    )


def break_package(monkeypatch: pytest.MonkeyPatch, folder: Path, name: str, engine_module: str) -> None:
    """Make an installed package fail to load, as with a missing native library."""
    (folder / name).mkdir()
    (folder / name / "__init__.py").write_text(f"raise ImportError('lib{name}.so.1: cannot open shared object file')")
    for module in [m for m in sys.modules if m in (name, engine_module) or m.startswith(f"{name}.")]:
        monkeypatch.delitem(sys.modules, module)
    monkeypatch.syspath_prepend(str(folder))


def test_every_engine_of_the_configuration_is_known() -> None:
    assert [status.name for status in probe_engines()] == AUTO_ORDER
    assert sorted([*AUTO_ORDER, "auto"]) == sorted(ENGINES)


def test_auto_without_a_gpu_takes_openvino_and_says_why(
    manifest: ModelManifest, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.INFO):
        choice = open_backend("auto", manifest)
    with choice.backend:
        assert choice.backend.name == "openvino"
        assert choice.reason == f"the fastest that works here ({choice.backend.precision} on cpu)"
    assert [name for name, _ in choice.passed_over] == ["tensorrt", "tensorrt-rtx", "torch"]
    assert all("no NVIDIA GPU was found here" in reason for _, reason in choice.passed_over)
    assert [r.levelname for r in caplog.records] == ["INFO"] * 3  # nothing is lost: no warning


@pytest.mark.parametrize("precision", ["auto", "f32"])
def test_a_precision_for_whatever_engine_is_taken(precision: str, manifest: ModelManifest) -> None:
    choice = open_backend("auto", manifest, precision=precision)
    with choice.backend:
        assert choice.backend.name == "openvino" and choice.backend.precision_reason
        assert (choice.backend.precision_reason == "asked for") == (precision == "f32")


def test_an_engine_without_the_precision_is_passed_over_in_silence(
    manifest: ModelManifest, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(selection, "cuda_device_count", lambda: 1)
    choice = open_backend("auto", manifest, precision="f32")
    choice.backend.close()
    passed = dict(choice.passed_over)
    assert "has no precision 'f32'; choose fp16" in passed["tensorrt"] + passed["tensorrt-rtx"]
    assert not [r for r in caplog.records if "precision" in r.message and r.levelno >= logging.WARNING]
    with pytest.raises(EngineError, match="onnxruntime has no precision 'int8'; choose f32, or another engine"):
        open_backend("onnxruntime", manifest, precision="int8")
    with pytest.raises(EngineError, match=r"no engine works here.*onnxruntime has no precision 'fp8'"):
        open_backend("auto", manifest, precision="fp8")


def test_auto_falls_back_to_onnxruntime_with_a_warning(
    manifest: ModelManifest, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    hide_packages(monkeypatch, "openvino")
    choice = open_backend("auto", manifest)
    with choice.backend:
        assert choice.backend.name == "onnxruntime"
    assert dict(choice.passed_over)["openvino"].startswith("the package openvino is not installed; pip install")
    warnings = [r.getMessage() for r in caplog.records if r.levelno == logging.WARNING]
    assert warnings == [f"not openvino: {dict(choice.passed_over)['openvino']}"]


def test_auto_passes_over_an_engine_that_does_not_load(
    manifest: ModelManifest, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    break_package(monkeypatch, tmp_path, "openvino", "idm_rt.backends.openvino_backend")
    choice = open_backend("auto", manifest)
    with choice.backend:
        assert choice.backend.name == "onnxruntime"
    assert "libopenvino.so.1: cannot open shared object file" in dict(choice.passed_over)["openvino"]
    assert "libopenvino.so.1" in caplog.text


def test_an_engine_asked_for_by_name_is_never_replaced(
    manifest: ModelManifest, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    break_package(monkeypatch, tmp_path, "openvino", "idm_rt.backends.openvino_backend")
    with pytest.raises(EngineError, match=r"^engine openvino could not be opened: libopenvino\.so\.1: cannot open"):
        open_backend("openvino", manifest)


def test_asked_for_by_name(manifest: ModelManifest) -> None:
    choice = open_backend("onnxruntime", manifest)
    with choice.backend:
        assert (choice.backend.name, choice.reason, choice.passed_over) == ("onnxruntime", "asked for by name", ())


@pytest.mark.parametrize(
    ("engine", "package", "extra"),
    [
        ("tensorrt", "tensorrt", "idm-rt[tensorrt]"),
        ("tensorrt-rtx", "tensorrt_rtx", "idm-rt[rtx]"),
        ("torch", "torch", "idm-rt[train]"),
    ],
)
def test_a_missing_package_names_its_extra(
    engine: str, package: str, extra: str, manifest: ModelManifest, monkeypatch: pytest.MonkeyPatch
) -> None:
    hide_packages(monkeypatch, package)
    with pytest.raises(EngineError) as caught:
        open_backend(engine, manifest)
    message = str(caught.value)
    assert message.startswith(f"engine {engine} is not available: ")
    assert f"the package {package} is not installed" in message and f"pip install '{extra}'" in message
    assert "\n" not in message


@pytest.mark.parametrize("engine", ["tensorrt", "tensorrt-rtx"])
def test_tensorrt_without_a_gpu_says_so_and_shows_no_cuda_error(engine: str, manifest: ModelManifest) -> None:
    message = (
        r"is not available: no NVIDIA GPU was found here; the package tensorrt(_rtx)? is .*; or choose --engine auto$"
    )
    with pytest.raises(EngineError, match=message):
        open_backend(engine, manifest)


def test_tensorrt_whose_libraries_do_not_load(
    manifest: ModelManifest, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """The wheel named tensorrt is a shell: it can be installed without the libraries it fetches."""
    monkeypatch.setattr(selection, "cuda_device_count", lambda: 1)
    break_package(monkeypatch, tmp_path, "tensorrt", "idm_rt.backends.trt.backend")
    with pytest.raises(
        EngineError, match=r"installed but its libraries do not load \(libtensorrt.so.1: .*\[tensorrt\]"
    ):
        open_backend("tensorrt", manifest)
    choice = open_backend("auto", manifest)
    choice.backend.close()
    assert "its libraries do not load" in dict(choice.passed_over)["tensorrt"]


class _StandIn(Backend):
    """An engine on a GPU, of which only the name is real."""

    precision, device, size = "fp16", "cuda:0", 64

    def __init__(self, name: str) -> None:
        self.name, self.closed = name, False

    def denoise(self, x_t: object, y: object, t: float) -> object:
        return y

    def close(self) -> None:
        self.closed = True


@pytest.fixture
def with_tensorrt(monkeypatch: pytest.MonkeyPatch) -> SimpleNamespace:
    """A machine with a GPU and TensorRT; ``fault`` is why there is no plan yet, ``build`` what a build does."""
    trt = importlib.import_module("idm_rt.backends.trt.backend")  # as selection does it
    state = SimpleNamespace(fault=None, opened=[], build=threading.Event())

    def open_engine(name: str, manifest: ModelManifest, precision: object, cancelled: object = None) -> Backend:
        assert state.build.wait(10)
        state.opened.append(_StandIn(name))
        return state.opened[-1]

    monkeypatch.setattr(selection, "cuda_device_count", lambda: 1)
    real = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util, "find_spec", lambda name, package=None: real("json" if name.startswith("tensorrt") else name)
    )
    monkeypatch.setattr(trt, "open_engine", open_engine)
    monkeypatch.setattr(trt, "why_not_ready", lambda name, manifest: state.fault)
    return state


def test_auto_takes_tensorrt_whose_plan_is_there(manifest: ModelManifest, with_tensorrt: SimpleNamespace) -> None:
    with_tensorrt.build.set()
    choice = open_backend("auto", manifest)
    assert choice.backend is with_tensorrt.opened[0] and choice.passed_over == ()
    assert (choice.backend.name, choice.reason) == ("tensorrt", "the fastest that works here (fp16 on cuda:0)")


def test_while_a_plan_is_built_another_engine_runs(
    manifest: ModelManifest, with_tensorrt: SimpleNamespace, monkeypatch: pytest.MonkeyPatch
) -> None:
    import torch

    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with_tensorrt.fault = "not built yet"
    choice = open_backend("auto", manifest)
    backend = choice.backend
    assert isinstance(backend, SwappingBackend)
    assert backend.name == "openvino" and choice.reason.startswith("until the plan of tensorrt is built (")
    assert "its plan is being built" in dict(choice.passed_over)["tensorrt"]
    with_tensorrt.build.set()
    assert backend.wait(10)
    assert backend.name == "tensorrt"
    backend.close()
    assert with_tensorrt.opened[0].closed


def test_with_nothing_else_to_run_auto_waits_for_the_build(
    manifest: ModelManifest, with_tensorrt: SimpleNamespace, monkeypatch: pytest.MonkeyPatch
) -> None:
    with_tensorrt.fault = "not built yet"
    with_tensorrt.build.set()
    real = importlib.util.find_spec
    gone = ("torch", "openvino", "onnxruntime", "tensorrt_rtx")
    monkeypatch.setattr(importlib.util, "find_spec", lambda name, package=None: None if name in gone else real(name))
    choice = open_backend("auto", manifest)
    assert (choice.backend.name, choice.reason) == ("tensorrt", "the only one that works here")


def test_auto_with_a_gpu_warns_when_it_stays_unused(
    manifest: ModelManifest, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    import torch

    monkeypatch.setattr(selection, "cuda_device_count", lambda: 1)
    hide_packages(monkeypatch, "tensorrt", "tensorrt_rtx")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)  # a CPU build of torch beside a real GPU
    choice = open_backend("auto", manifest)
    with choice.backend:
        assert choice.backend.name == "openvino"
    assert "built without CUDA or finds no usable GPU" in dict(choice.passed_over)["torch"]
    assert [r.levelno for r in caplog.records] == [logging.WARNING] * 3


def test_auto_passes_over_an_engine_whose_file_the_model_lacks(
    tiny_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "onnx-only"
    folder.mkdir()
    shutil.copy(tiny_folder / "model.onnx", folder)
    write_manifest(folder)
    monkeypatch.setattr(selection, "cuda_device_count", lambda: 1)
    hide_packages(monkeypatch, "tensorrt", "tensorrt_rtx")
    choice = open_backend("auto", load_manifest(folder))
    with choice.backend:
        assert choice.backend.name == "openvino"
    assert "'onnx-only' comes without the weights file that it needs" in dict(choice.passed_over)["torch"]


def test_auto_takes_torch_on_a_gpu(manifest: ModelManifest, monkeypatch: pytest.MonkeyPatch) -> None:
    """The choice, not the GPU: the opened backend only says that it is on one."""
    from idm_rt.backends import torch_backend

    def open_on_gpu(manifest: ModelManifest, threads: int | None, precision: str | None) -> Backend:
        backend = torch_backend.TorchBackend(
            torch_backend.load_denoiser(manifest.verified_file("weights"), manifest.network), 64, device="cpu"
        )
        backend.device = "cuda:0"
        return backend

    monkeypatch.setattr(selection, "cuda_device_count", lambda: 1)
    hide_packages(monkeypatch, "tensorrt", "tensorrt_rtx")
    monkeypatch.setattr(torch_backend, "open_model", open_on_gpu)
    choice = open_backend("auto", manifest)
    assert (choice.backend.name, choice.reason) == ("torch", "the fastest that works here (f32 on cuda:0)")
    assert [name for name, _ in choice.passed_over] == ["tensorrt", "tensorrt-rtx"]


def test_threads_are_checked(manifest: ModelManifest) -> None:
    with pytest.raises(ValueError, match="threads must be 1 or more, or None, found 0"):
        open_backend("openvino", manifest, threads=0)


def test_no_engine_at_all(manifest: ModelManifest, monkeypatch: pytest.MonkeyPatch) -> None:
    hide_packages(monkeypatch, "openvino", "onnxruntime", "torch")
    with pytest.raises(EngineError, match=r"^no engine works here; tensorrt: .*; openvino: .*; onnxruntime: .*"):
        open_backend("auto", manifest)


def test_unknown_engine(manifest: ModelManifest) -> None:
    with pytest.raises(EngineError, match=r"^unknown engine 'tpu'; choose one of auto, openvino, .*tensorrt-rtx$"):
        open_backend("tpu", manifest)


def test_a_corrupt_model_is_no_reason_to_try_another_engine(tiny_folder: Path, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(tiny_folder, tmp_path / "copy"))
    (folder / "model.onnx").write_bytes(b"")
    with pytest.raises(ModelError, match=r"model\.onnx has 0 bytes, expected \d+"):
        open_backend("auto", load_manifest(folder))


def test_the_probe_tells_versions_and_devices() -> None:
    import openvino

    states = {status.name: status for status in probe_engines()}
    assert states["openvino"].available and states["openvino"].applicable
    assert openvino.__version__.startswith(states["openvino"].version or "none")
    assert not states["tensorrt"].available and not states["tensorrt"].applicable
    assert states["torch"].available and not states["torch"].applicable


def run_python(code: str, *arguments: str) -> str:
    """Output of a fresh interpreter that sees no GPU."""
    environment = {"PYTHONPATH": os.pathsep.join(filter(None, sys.path)), "CUDA_VISIBLE_DEVICES": "-1"}
    done = subprocess.run(
        [sys.executable, "-c", code, *arguments],
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
        env={**os.environ, **environment},
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


HEAVY = "print(sorted({'cv2', 'onnxruntime', 'openvino', 'tensorrt', 'tensorrt_rtx', 'torch'} & set(sys.modules)))"


def test_the_probe_imports_no_engine() -> None:
    code = f"import sys; from idm_rt.backends import probe_engines; assert probe_engines(); {HEAVY}"
    assert run_python(code) == "[]"


def test_the_default_path_imports_one_engine_and_never_torch(tiny_folder: Path) -> None:
    code = (
        "import sys, numpy; from idm_rt import open_restorer; restorer = open_restorer(sys.argv[1]); "
        f"restorer.restore(numpy.zeros((1, restorer.size, restorer.size, 3), 'uint8')); {HEAVY}"
    )
    assert run_python(code, str(tiny_folder)) == "['cv2', 'openvino']"
