"""model.json is validated once, and every fault is told in one line."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from tiny_model import SIZE, write_manifest

from idm_rt.errors import ModelError
from idm_rt.model_files import sha256_of
from idm_rt.model_manifest import load_manifest


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A model whose network is a few bytes: enough for its manifest."""
    folder = tmp_path / "small"
    folder.mkdir()
    (folder / "model.onnx").write_bytes(b"network")
    write_manifest(folder)
    return folder


def change(folder: Path, **changes: Any) -> None:
    """Replace fields of the manifest; a value of None removes the field."""
    path = folder / "model.json"
    values = {**json.loads(path.read_text()), **changes}
    path.write_text(json.dumps({key: value for key, value in values.items() if value is not None}))


def record(**changes: Any) -> dict[str, Any]:
    return {"onnx": {"path": "model.onnx", "sha256": "0" * 64, "bytes": 7, **changes}}


def test_fields(folder: Path) -> None:
    manifest = load_manifest(folder)
    assert (manifest.name, manifest.version, manifest.licence) == ("small", "1.0.0", "Apache-2.0")
    assert manifest.crop_size == SIZE
    assert manifest.steps == (1, 2, 4)
    assert len(manifest.align_template) == 5
    assert manifest.tolerance["f32_db"] == 60
    assert manifest.has("onnx") and not manifest.has("onnx_fp16")
    assert manifest.verified_file("onnx") == folder / "model.onnx"
    assert manifest.files["onnx"].sha256 == sha256_of(folder / "model.onnx")


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"schema": 2}, "has schema 2, expected 1; install the idm_rt version it was made for"),
        ({"schema": None}, "has schema None, expected 1"),
        ({"licence": None}, "lacks the field 'licence'; export the model again"),
        ({"name": "  "}, "field 'name' is not valid (expected a text, found '  ')"),
        ({"crop_size": 0}, "field 'crop_size' is not valid (expected a whole number from 1, found 0)"),
        ({"crop_size": True}, "field 'crop_size' is not valid"),
        ({"align_template": [[0.1, 0.2]]}, "field 'align_template' is not valid (expected five points, found 1)"),
        ({"align_template": 5}, "field 'align_template' is not valid"),
        ({"steps": []}, "field 'steps' is not valid (expected a list of whole numbers, found [])"),
        ({"kappa": -1}, "field 'kappa' is not valid (expected a number, 0 or more, found -1)"),
        ({"tolerance": {"f32_db": "high"}}, "field 'tolerance' is not valid"),
        ({"files": {}}, "field 'files' is not valid (expected an entry 'onnx')"),
        ({"files": {"onnx": {"path": "model.onnx"}}}, "field 'files' is not valid (missing 'sha256')"),
        ({"files": record(path="../model.onnx")}, "expected a path inside the model's folder, found '../model.onnx'"),
        ({"files": record(path="/etc/passwd")}, "expected a path inside the model's folder, found '/etc/passwd'"),
        ({"files": record(sha256="abc")}, "expected 64 hexadecimal digits as sha256, found 'abc'"),
        ({"files": record(bytes="7")}, "expected a whole number from 1, found '7'"),
    ],
)
def test_faults(changes: dict[str, Any], words: str, folder: Path) -> None:
    change(folder, **changes)
    with pytest.raises(ModelError) as caught:
        load_manifest(folder)
    message = str(caught.value)
    assert message.startswith(f"{folder / 'model.json'}") and words in message and "\n" not in message


@pytest.mark.parametrize("content", [b"", b"{", b"\xff\xfe"])
def test_not_json(content: bytes, folder: Path) -> None:
    (folder / "model.json").write_bytes(content)
    with pytest.raises(ModelError, match=r"model\.json is not JSON \(.*\); restore it or export the model again"):
        load_manifest(folder)


def test_no_manifest(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=r"holds no model\.json; name a folder written by the export"):
        load_manifest(tmp_path)


def test_a_kind_of_file_the_model_does_not_have(folder: Path) -> None:
    with pytest.raises(ModelError, match=r"^model 'small' has no weights file, only onnx; choose another engine$"):
        load_manifest(folder).verified_file("weights")


REMEDY = "; restore the folder of model 'small' or reinstall$"


def test_a_missing_file(folder: Path) -> None:
    (folder / "model.onnx").unlink()
    with pytest.raises(ModelError, match=r"model\.onnx is missing" + REMEDY):
        load_manifest(folder).verified_file("onnx")


def test_a_folder_in_place_of_a_file(folder: Path) -> None:
    (folder / "model.onnx").unlink()
    (folder / "model.onnx").mkdir()
    with pytest.raises(ModelError, match=r"model\.onnx is not a file" + REMEDY):
        load_manifest(folder).verified_file("onnx")


def test_a_truncated_file(folder: Path) -> None:
    (folder / "model.onnx").write_bytes(b"netw")
    with pytest.raises(ModelError, match=r"model\.onnx has 4 bytes, expected 7" + REMEDY):
        load_manifest(folder).verified_file("onnx")


def test_a_file_of_another_hash(folder: Path) -> None:
    expected = sha256_of(folder / "model.onnx")
    (folder / "model.onnx").write_bytes(b"NETWORK")
    found = sha256_of(folder / "model.onnx")
    with pytest.raises(ModelError, match=rf"model\.onnx has sha256 {found}, expected {expected}" + REMEDY):
        load_manifest(folder).verified_file("onnx")
