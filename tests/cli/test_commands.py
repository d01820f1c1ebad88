"""``models``, ``sample``, ``doctor`` and ``bench`` through the real command line."""

from __future__ import annotations

import json
import shutil
import subprocess
from collections.abc import Sequence
from pathlib import Path

import av
import pytest
from cli_tools import Cli, command

import idm_rt
from idm_rt.model_store import FACE_LANDMARKER, cache_dir


@pytest.fixture
def model_root(tiny_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A models' folder whose only and default model is the small one."""
    folder = tmp_path / "models" / "idm-face-256"
    shutil.copytree(tiny_folder, folder)
    monkeypatch.setenv("IDM_RT_MODELS", str(folder.parent))
    return folder.parent


def test_version_and_help_of_both_names(cli_process: Cli) -> None:
    shown = cli_process("--version")
    assert shown.code == 0 and shown.out == f"idm-rt {idm_rt.__version__}\n"
    shown = cli_process("--help")
    assert shown.code == 0
    for name in ("enhance", "bench", "doctor", "models"):
        assert f"\n    {name} " in shown.out


def test_models_that_are_all_right(model_root: Path, models: Sequence[object], cli: Cli) -> None:
    listed = cli("models", "list")
    assert listed.code == 0 and "BAD" not in listed.out
    for name in ("face_landmarker.task", "idm-face-256/model.onnx", "idm-face-256/model.safetensors"):
        assert name in listed.out
    assert cli("models", "verify").code == 0
    fetched = cli("models", "fetch")  # nothing to do: works without a network
    assert fetched.code == 0 and str(cache_dir() / FACE_LANDMARKER.record.path) in fetched.out


def test_a_damaged_model_is_named_with_its_cure(model_root: Path, models: Sequence[object], cli: Cli) -> None:
    with (model_root / "idm-face-256" / "model.onnx").open("ab") as file:
        file.write(b"x")
    verified = cli("models", "verify")
    assert verified.code == 1 and "BAD idm-face-256/model.onnx" in verified.out
    assert "1 of 4 model files are not right" in verified.error and "reinstall" in verified.error
    listed = cli("models", "list")
    assert listed.code == 0 and "BAD" in listed.out


def test_a_reader_that_goes_away(model_root: Path) -> None:
    shell = f"{' '.join(command('models', 'list'))} | true"
    done = subprocess.run(["bash", "-c", shell], capture_output=True, text=True, timeout=60, check=False)
    assert "Traceback" not in done.stderr and "BrokenPipe" not in done.stderr


def test_the_sample_is_a_call(tmp_path: Path, cli: Cli) -> None:
    assert cli("sample", tmp_path / "call.mp4").code == 0
    with av.open(str(tmp_path / "call.mp4")) as container:
        stream = container.streams.video[0]
        assert (stream.width, stream.height, stream.frames) == (640, 480, 100)
    again = cli("sample", tmp_path / "call.mp4")
    assert again.code == 1 and "exists already; add --overwrite" in again.error
    assert cli("sample", tmp_path / "call.mp4", "--overwrite").code == 0
    assert cli("sample", tmp_path / "call.avi").code == 1


def test_the_doctor_finds_a_machine_well(model_root: Path, models: Sequence[object], cli: Cli) -> None:
    found = cli("doctor", "--json")
    assert found.code == 0 and found.err == ""
    diagnosis = json.loads(found.out)
    assert diagnosis["ok"] and diagnosis["machine"]["cores"] >= 1 and diagnosis["versions"]["openvino"]
    (chosen,) = [engine for engine in diagnosis["engines"] if engine["chosen"]]
    assert chosen["name"] == "openvino"
    assert all(engine["reason"] for engine in diagnosis["engines"])
    names = {check["name"] for check in diagnosis["checks"]}
    assert names >= {"python", "opencv", "video codecs", "cache", "engine", "face tracker"}
    (tracker,) = [check["found"] for check in diagnosis["checks"] if check["name"] == "face tracker"]
    assert tracker.startswith(("auto takes openvino: ", "auto takes mediapipe: openvino cannot be used: "))
    text = cli("doctor")
    assert text.code == 0 and "ok engine: auto takes openvino" in " ".join(text.out.split())


def test_the_doctor_names_the_cure(model_root: Path, tmp_path: Path, cli: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("IDM_RT_CACHE", str(tmp_path / "cache"))
    found = cli("doctor")
    assert found.code == 1 and "face_landmarker.task is missing; idm-rt models fetch" in found.error
    (model_root / "idm-face-256" / "model.json").write_text("{}")
    found = cli("doctor", "--json")
    assert found.code == 1 and json.loads(found.out)["ok"] is False
    bad = {check["name"] for check in json.loads(found.out)["checks"] if not check["ok"]}
    assert {"engine", "face tracker", "model file face_landmarker.task"} <= bad


def test_bench_measures_the_sample(tmp_path: Path, models: Sequence[object], cli: Cli) -> None:
    row_path = tmp_path / "row.json"
    done = cli("bench", "--frames", "12", "--warm-up", "3", "--size", "1280x480", "--faces", "2", "--json", row_path,
               *models)  # fmt: skip
    assert done.code == 0 and done.err == "" and "frames per second" in done.out
    row = json.loads(row_path.read_text())
    assert (row["clip"]["width"], row["clip"]["height"], row["clip"]["scale"]) == (1280, 480, 1.0)
    assert row["seen"] == {
        "frames": 12,
        "frames_with_faces": 12,
        "faces_per_frame": 2.0,
        "restored": 24,
        "bypassed": 0,
    }
    assert row["stages_ms"]["frame"]["count"] == 12
    assert row["frame_p50_ms"] <= row["frame_p95_ms"] and 0 < row["outside_networks_ratio"] < 1
    assert row["memory"]["rss_peak_mb"] > 50 and row["memory"]["rss_slope_mb_per_1000_frames"] is None
    again = cli("bench", "--frames", "12", "--json", row_path, *models)
    assert again.code == 1 and "exists already" in again.error
