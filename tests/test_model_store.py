"""Where models and fetched files are looked for, and what is said when they are not there."""

from __future__ import annotations

import os
import shutil
from importlib.machinery import ModuleSpec
from pathlib import Path

import pytest
from tiny_model import write_manifest

from idm_rt import model_store
from idm_rt.config import DEFAULT_MODEL
from idm_rt.errors import ModelError
from idm_rt.model_download import DownloadableFile
from idm_rt.model_files import FileRecord, sha256_of

CONTENT = b"a small file in place of the landmark model"


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A models' folder with two models in it."""
    root = tmp_path / "models"
    for name in ("alpha", DEFAULT_MODEL):
        folder = root / name
        folder.mkdir(parents=True)
        (folder / "model.onnx").write_bytes(name.encode())
        write_manifest(folder)
    (root / "not-a-model").mkdir()
    return root


@pytest.fixture(autouse=True)
def small_world(tmp_path: Path, root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No test looks into the real cache or fetches the real file."""
    monkeypatch.setenv("IDM_RT_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("IDM_RT_MODELS", str(root))
    source = tmp_path / "source.task"
    source.write_bytes(CONTENT)
    record = FileRecord("face_landmarker.task", sha256_of(source), len(CONTENT))
    small = DownloadableFile(record, "Apache-2.0", source.as_uri(), "none==0", "none")
    monkeypatch.setattr(model_store, "FACE_LANDMARKER", small)


def test_names_are_sorted_and_hold_a_manifest() -> None:
    assert model_store.model_names() == ["alpha", DEFAULT_MODEL]


def test_the_default_model(root: Path) -> None:
    assert model_store.find_model().folder == root / DEFAULT_MODEL


def test_a_model_by_name_and_by_folder(root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert model_store.find_model("alpha").name == "alpha"
    elsewhere = Path(shutil.copytree(root / "alpha", tmp_path / "elsewhere"))
    assert model_store.find_model(elsewhere).folder == elsewhere
    assert model_store.find_model(str(elsewhere)).folder == elsewhere
    monkeypatch.chdir(tmp_path)
    assert model_store.find_model("elsewhere").name == "alpha"
    assert model_store.find_model("./elsewhere").name == "alpha"


def test_an_unknown_model_lists_those_there_are(root: Path) -> None:
    expected = f"^unknown model 'beta' in {root}; choose one of: alpha, {DEFAULT_MODEL}; or give the path of a folder"
    with pytest.raises(ModelError, match=expected):
        model_store.find_model("beta")


@pytest.mark.parametrize("name", ["..", ".", "../models/missing", "/nowhere"])
def test_a_path_without_a_model(name: str) -> None:
    with pytest.raises(ModelError, match=r"holds no model\.json"):
        model_store.find_model(name)


def test_the_argument_wins_over_the_environment(tmp_path: Path) -> None:
    other = tmp_path / "other"
    other.mkdir()
    assert model_store.models_root(other) == other


def test_a_named_root_that_is_not_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("IDM_RT_MODELS", str(tmp_path / "gone"))
    with pytest.raises(ModelError, match="gone is not a folder; let IDM_RT_MODELS name one that holds models"):
        model_store.models_root()


def test_package_data_wins_over_the_checkout(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("IDM_RT_MODELS")
    spec = ModuleSpec("idm_rt.engines", None, is_package=True)
    spec.submodule_search_locations = [str(root.parent)]  # root is <engines>/models
    monkeypatch.setattr(model_store.importlib.util, "find_spec", lambda name: spec)
    assert model_store.models_root() == root


def test_the_checkout(root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    checkout = tmp_path / "checkout"
    shutil.copytree(root, checkout / "engines" / "models")
    monkeypatch.delenv("IDM_RT_MODELS")
    monkeypatch.setattr(model_store.importlib.util, "find_spec", lambda name: None)
    monkeypatch.setattr(model_store, "__file__", str(checkout / "idm_rt" / "model_store.py"))
    assert model_store.models_root() == checkout / "engines" / "models"


def test_no_models_at_all(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("IDM_RT_MODELS")
    monkeypatch.setattr(model_store.importlib.util, "find_spec", lambda name: None)
    monkeypatch.setattr(model_store, "__file__", str(tmp_path / "idm_rt" / "model_store.py"))
    with pytest.raises(ModelError, match=r"no models are installed \(looked in .*\); reinstall idm-rt or set IDM_RT"):
        model_store.find_model()
    assert [(f.name, f.ok) for f in model_store.inventory()][1:] == [(DEFAULT_MODEL, False)]


def test_the_cache_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert model_store.cache_dir() == tmp_path / "cache"
    monkeypatch.delenv("IDM_RT_CACHE")
    assert "idm_rt" in model_store.cache_dir().parts


def test_the_landmarker_is_fetched_once(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    path = model_store.find_landmarker()
    assert path == tmp_path / "cache" / "face_landmarker.task" and path.read_bytes() == CONTENT
    assert "fetching face_landmarker.task" in caplog.text
    (tmp_path / "source.task").unlink()  # from here on the source is gone
    assert model_store.find_landmarker() == path


def test_a_corrupt_cache_is_fetched_anew(tmp_path: Path) -> None:
    path = model_store.find_landmarker()
    path.write_bytes(CONTENT[::-1])
    assert model_store.find_landmarker().read_bytes() == CONTENT


def test_a_named_landmarker_is_checked_and_nothing_else_is_tried(tmp_path: Path) -> None:
    good = tmp_path / "source.task"
    assert model_store.find_landmarker(good) == good
    with pytest.raises(ModelError, match=r"absent\.task is missing; name the right file, or none to let it be fetched"):
        model_store.find_landmarker(tmp_path / "absent.task")
    bad = tmp_path / "bad.task"
    bad.write_bytes(CONTENT.upper())
    with pytest.raises(ModelError, match=r"bad\.task has sha256 .*, expected .*; name the right file"):
        model_store.find_landmarker(str(bad))
    assert not (tmp_path / "cache").exists()


def test_only_fetched_files_can_be_fetched() -> None:
    with pytest.raises(ModelError, match=r"^'alpha' is not fetched but ships with the package; only face_landmarker"):
        model_store.fetch("alpha")


def test_the_inventory_checks_every_file(root: Path) -> None:
    assert {f.name: f.ok for f in model_store.inventory()} == {
        "face_landmarker.task": False,
        "alpha/model.onnx": True,
        f"{DEFAULT_MODEL}/model.onnx": True,
    }
    model_store.fetch()
    (root / "alpha" / "model.onnx").write_bytes(b"ALPHA")
    (root / DEFAULT_MODEL / "model.json").write_text("{")
    faults = {f.name: f.fault for f in model_store.inventory()}
    assert faults["face_landmarker.task"] is None
    assert "has sha256" in str(faults["alpha/model.onnx"])
    assert "is not JSON" in str(faults[f"{DEFAULT_MODEL}/model.json"])


@pytest.mark.skipif(os.name == "nt" or os.geteuid() == 0, reason="needs a folder this user may not write")
def test_a_cache_that_cannot_be_written(tmp_path: Path) -> None:
    (tmp_path / "cache").mkdir(mode=0o500)
    with pytest.raises(ModelError, match=r"cannot be written .*; free the space or set IDM_RT_CACHE"):
        model_store.find_landmarker()


def test_a_cache_path_that_is_a_file(tmp_path: Path) -> None:
    (tmp_path / "cache").write_text("in the way")
    with pytest.raises(ModelError, match=r"cannot be written .*; free the space or set IDM_RT_CACHE"):
        model_store.find_landmarker()
