"""What an installed package holds: every module, the models, the sample; metadata that agrees with itself."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tomllib
import zipfile
from pathlib import Path
from typing import Any

import pytest

import idm_rt
from idm_rt.config import DEFAULT_MODEL
from idm_rt.sample_clip import SAMPLE_NAME

ROOT = Path(__file__).resolve().parent.parent
MODEL = ROOT / "engines" / "models" / DEFAULT_MODEL


@pytest.fixture(scope="module")
def project() -> dict[str, Any]:
    return tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))


def test_every_package_folder_is_listed(project: dict[str, Any]) -> None:
    folders = {path.parent.relative_to(ROOT).as_posix() for path in (ROOT / "idm_rt").rglob("*.py")}
    found = {folder.replace("/", ".") for folder in folders}
    mapped = set(project["tool"]["setuptools"]["package-dir"])
    assert set(project["tool"]["setuptools"]["packages"]) == found | mapped


def test_nothing_pulls_in_a_second_opencv(project: dict[str, Any]) -> None:
    extras = project["project"]["optional-dependencies"]
    wanted = [*project["project"]["dependencies"], *(line for lines in extras.values() for line in lines)]
    assert [line for line in wanted if line.startswith("opencv")] == ["opencv-contrib-python>=5,<6"]


def test_the_base_install_is_without_torch(project: dict[str, Any]) -> None:
    assert not [line for line in project["project"]["dependencies"] if line.startswith(("torch", "onnx>", "skimage"))]
    assert set(project["project"]["optional-dependencies"]) >= {"webrtc", "camera", "tensorrt", "rtx", "train", "dev"}


def test_the_sample_is_small() -> None:
    assert 10_000 < (ROOT / "demos" / "sample" / SAMPLE_NAME).stat().st_size < 300_000


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder with the built wheel unpacked, as pip would put it; built from a copy of what the checkout tracks."""
    folder = tmp_path_factory.mktemp("wheel")
    source = folder / "source"
    ignore = shutil.ignore_patterns("__pycache__", "*.egg-info", "built", "build")
    for name in ("idm_rt", "engines", "demos"):
        shutil.copytree(ROOT / name, source / name, ignore=ignore)
    for name in ("pyproject.toml", "setup.py", "LICENSE", "README.md"):
        shutil.copy(ROOT / name, source)
    # The build backend is called directly: pip would fetch setuptools into a fresh environment, over the network.
    build = "import sys; from setuptools import build_meta; build_meta.build_wheel(sys.argv[1])"
    done = subprocess.run([sys.executable, "-c", build, str(folder)], cwd=source, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    (wheel,) = folder.glob("*.whl")
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(folder / "site")
    return folder / "site"


def run_installed(site: Path, *arguments: object) -> subprocess.CompletedProcess[str]:
    """The installed command line, far from the checkout and with torch made impossible to import."""
    start = "import sys; sys.modules['torch'] = None; from idm_rt.cli import main; sys.exit(main())"
    environment = {key: value for key, value in os.environ.items() if key not in ("IDM_RT_MODELS", "PYTHONPATH")}
    return subprocess.run(
        [sys.executable, "-P", "-c", start, *map(str, arguments)],
        env={**environment, "PYTHONPATH": str(site)},
        cwd=site.parent,
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )


@pytest.mark.slow
def test_the_wheel_holds_everything(installed: Path, project: dict[str, Any]) -> None:
    modules = {path.relative_to(ROOT).as_posix() for path in (ROOT / "idm_rt").rglob("*.py")}
    assert {path.relative_to(installed).as_posix() for path in installed.rglob("*.py")} >= modules
    assert (installed / "idm_rt" / "sample" / SAMPLE_NAME).is_file() and (installed / "idm_rt" / "py.typed").is_file()
    assert {path.name for path in installed.iterdir()} == {"idm_rt", f"idm_rt-{idm_rt.__version__}.dist-info"}
    metadata = (installed / f"idm_rt-{idm_rt.__version__}.dist-info" / "METADATA").read_text(encoding="utf-8")
    assert "License-Expression: Apache-2.0" in metadata and "Requires-Python: >=3.11" in metadata
    assert "idm-rt = idm_rt.cli:main" in (
        installed / f"idm_rt-{idm_rt.__version__}.dist-info" / "entry_points.txt"
    ).read_text(encoding="utf-8")
    for extra in project["project"]["optional-dependencies"]:
        assert f"Provides-Extra: {extra}" in metadata


@pytest.mark.slow
@pytest.mark.skipif(not MODEL.is_dir(), reason=f"no model {DEFAULT_MODEL} under engines/models yet")
def test_the_installed_command_enhances_the_sample(installed: Path, tmp_path: Path) -> None:
    from idm_rt.model_files import find_fault
    from idm_rt.model_store import FACE_LANDMARKER, cache_dir

    model = installed / "idm_rt" / "engines" / "models" / DEFAULT_MODEL
    assert {path.name for path in model.iterdir()} == {path.name for path in MODEL.iterdir()}
    where = run_installed(installed, "models", "list")
    assert where.returncode == 0 and str(model) in where.stdout
    if find_fault(cache_dir() / FACE_LANDMARKER.record.path, FACE_LANDMARKER.record) is not None:
        pytest.skip("face_landmarker.task is not in the cache: idm-rt models fetch")
    assert run_installed(installed, "models", "verify").returncode == 0
    assert run_installed(installed, "sample", tmp_path / "call.mp4").returncode == 0
    done = run_installed(installed, "enhance", tmp_path / "call.mp4", tmp_path / "enhanced.mp4")
    assert done.returncode == 0 and "100 frames written; faces in 100 of them" in done.stdout, done.stderr
    assert (tmp_path / "enhanced.mp4").read_bytes() != (tmp_path / "call.mp4").read_bytes()
