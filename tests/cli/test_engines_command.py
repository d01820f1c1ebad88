"""``idm-rt engines``: builds, lists, verifies and removes, and says what to do when it cannot."""

from __future__ import annotations

import shutil
import sys
from pathlib import Path

import pytest
from cli_tools import Cli

from idm_rt.backends.trt.library import load_library
from idm_rt.errors import EngineError
from idm_rt.model_manifest import load_manifest


def has_rtx() -> bool:
    try:
        load_library("tensorrt-rtx")
    except EngineError:
        return False
    return True


needs_rtx = pytest.mark.skipif(not has_rtx(), reason="tensorrt_rtx does not load here: pip install 'idm-rt[rtx]'")


@pytest.fixture(autouse=True)
def own_folder(tmp_path: Path, tiny_folder: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Plans go into a folder of the test's own; no GPU is there, whatever the machine has."""

    from idm_rt.backends import selection
    from idm_rt.backends.trt import backend
    from idm_rt.cli import engines

    shutil.copytree(tiny_folder, tmp_path / "models" / "idm-face-256")
    monkeypatch.setenv("IDM_RT_MODELS", str(tmp_path / "models"))
    monkeypatch.setenv("IDM_RT_BUILT", str(tmp_path / "built"))
    monkeypatch.setattr(selection, "cuda_device_count", lambda: 0)
    for module in (backend, engines):
        monkeypatch.setattr(module, "first_gpu", lambda: None)
    return tmp_path / "built"


@needs_rtx
@pytest.mark.slow
def test_build_list_clean(cli: Cli, own_folder: Path) -> None:
    built = cli("engines", "build")
    assert built.code == 0 and "tensorrt-rtx" in built.out and "is built" in built.out
    assert "none was found here, so it was not run" in built.out
    (plan,) = own_folder.glob("tensorrt-rtx/*.plan")
    again = cli("engines", "build", "--engine", "tensorrt-rtx")
    assert again.code == 0 and "was there" in again.out and again.err == ""
    listed = cli("engines", "list")
    assert listed.code == 0 and plan.name in listed.out and "1 built plans" in listed.out and "any GPU" in listed.out
    plan.write_bytes(b"short")
    assert "BAD" in cli("engines", "list").out
    cleaned = cli("engines", "clean", "--engine", "tensorrt")
    assert cleaned.code == 0 and "0 files removed" in cleaned.out and plan.exists()
    assert cli("engines", "clean").code == 0 and not [path for path in own_folder.rglob("*") if path.is_file()]


def test_list_says_why_for_every_engine(cli: Cli) -> None:
    listed = cli("engines", "list").out
    for name in ("tensorrt", "tensorrt-rtx", "torch"):
        assert f"-   {name} " in listed
    assert listed.count("no NVIDIA GPU was found here") == 3 and "ok  openvino" in listed
    assert "torch" not in cli("engines", "list", "--engine", "openvino").out


def test_what_cannot_be_built_says_what_to_do(cli: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("tensorrt", "tensorrt_rtx"):
        monkeypatch.setitem(sys.modules, name, None)
    refused = cli("engines", "build", "--engine", "tensorrt")
    assert (refused.code, refused.error) == (1, "the package tensorrt is not installed; pip install 'idm-rt[tensorrt]'")
    refused = cli("engines", "build")
    assert refused.code == 1 and "no plan can be built here; tensorrt: " in refused.error and "rtx]" in refused.error
    refused = cli("engines", "build", "--require-gpu")
    assert refused.code == 1 and "no NVIDIA GPU was found here, and --require-gpu asks for one" in refused.error


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["build", "--engine", "openvino"], "engine openvino needs no build; choose one of tensorrt, tensorrt-rtx"),
        (["build", "--batch", "17"], "batch is 17; a plan takes 1 to 16 faces"),
        (["verify", "--precision", "fp8"], "argument --precision: invalid choice: 'fp8'"),
        (["verify", "--steps", "3"], "argument --steps: invalid choice"),
        (["verify", "--batch", "0"], "argument --batch: '0' is not a whole number from 1 to 64"),
        ([], "the following arguments are required: ACTION"),
    ],
)
def test_usage(arguments: list[str], message: str, cli: Cli) -> None:
    refused = cli("engines", *arguments)
    assert refused.code == 2 and message in refused.error


def test_verify_compares_with_the_reference(cli: Cli, own_folder: Path) -> None:
    verified = cli("engines", "verify", "--batch", "3", "--precision", "f32")
    assert verified.code == 0 and verified.err == ""
    lines = verified.out.splitlines()
    assert [line.split("steps ")[1][0] for line in lines] == ["1", "2", "4"]
    assert all("batch 3" in line and "dB from onnxruntime f32 (at least 60 wanted)" in line for line in lines)
    assert cli("engines", "verify", "--steps", "1").code == 0  # the engine's best, whatever that is here
    other = cli("engines", "verify", "--engine", "onnxruntime", "--steps", "1")
    assert other.code == 0 and "dB from openvino f32" in other.out and len(other.out.splitlines()) == 1


def test_verify_fails_when_the_engine_computes_something_else(cli: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    from idm_rt.backends import openvino_backend

    real = openvino_backend.OpenVinoBackend.correction
    monkeypatch.setattr(
        openvino_backend.OpenVinoBackend, "correction", lambda self, *given: real(self, *given) + 0.01 * 127.5
    )
    failed = cli("engines", "verify", "--engine", "openvino", "--precision", "f32")
    assert failed.code == 1 and "BAD " in failed.out
    assert (
        "engine openvino is 4" in failed.error and "dB from onnxruntime at 1 steps, expected 60 or more" in failed.error
    )


@pytest.mark.parametrize("command", [["engines", "verify"], ["bench", "--frames", "10"]])
def test_a_gpu_that_is_required_and_not_there(command: list[str], cli: Cli) -> None:
    refused = cli(*command, "--require-gpu")
    assert refused.code == 1 and refused.error.startswith("no engine works on a GPU here; tensorrt: no NVIDIA GPU")
    refused = cli(*command, "--engine", "openvino", "--require-gpu")
    assert refused.code == 1 and "engine openvino runs on the CPU here, and a GPU is required" in refused.error


def test_the_tolerance_of_the_precision_must_be_there(tiny_folder: Path) -> None:
    import dataclasses

    from idm_rt.engine_check import check_engine_output
    from idm_rt.errors import ModelError

    manifest = dataclasses.replace(load_manifest(tiny_folder), tolerance={"bf16_db": 45.0})
    with pytest.raises(ModelError, match="names no tolerance for f32, only bf16_db"):
        check_engine_output("openvino", manifest, steps=(1,), precision="f32")
