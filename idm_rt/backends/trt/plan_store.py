"""The folder of built plans. A plan counts only with a side-car that names its key, size and hash.

<folder>/<engine>/<model>-<key>.plan          the plan
<folder>/<engine>/<model>-<key>.json          the side-car
<folder>/<engine>/<model>-<key>.lock          held while one process builds it
<folder>/<engine>/<model>-<key>.jit           TensorRT-RTX: machine code made at run time
<folder>/<engine>/timing.cache                of the builder
"""

from __future__ import annotations

import json
import logging
import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import idm_rt
from idm_rt.backends.trt.plan_key import PlanKey
from idm_rt.errors import EngineError
from idm_rt.model_files import FileRecord, find_fault, sha256_of
from idm_rt.model_store import CACHE_VARIABLE, cache_dir

log = logging.getLogger(__name__)

FOLDER_VARIABLE = "IDM_RT_BUILT"
_TIMING_CACHE = "timing.cache"
_SUFFIXES = (".plan", ".json", ".jit", ".lock")


@dataclass(frozen=True, slots=True)
class StoredPlan:
    """One plan of the folder, for people."""

    path: Path
    engine: str
    key: dict[str, Any] | None  # None: the side-car cannot be read
    size: int  # bytes
    fault: str | None  # None: as its side-car says


def built_folder() -> Path:
    """Where plans lie: ``IDM_RT_BUILT``; engines/built of a checkout; else the user's cache. Need not exist yet."""
    if value := os.environ.get(FOLDER_VARIABLE):
        return Path(value).expanduser()
    checkout = Path(idm_rt.__file__).resolve().parent.parent
    if (checkout / "pyproject.toml").is_file() and CACHE_VARIABLE not in os.environ:
        return checkout / "engines" / "built"
    return cache_dir() / "built"


class PlanStore:
    """Reads and writes the folder; every write is atomic."""

    def __init__(self, folder: Path | None = None) -> None:
        self.folder = folder or built_folder()

    def path(self, key: PlanKey) -> Path:
        """Where the plan of a key lies, or would."""
        return self.folder / key.engine / key.file_name

    def jit_path(self, key: PlanKey) -> Path:
        """Where the run-time cache of a plan lies, or would."""
        return self.path(key).with_suffix(".jit")

    def fault(self, key: PlanKey) -> str | None:
        """Why there is no plan to use, in words; None when there is one."""
        path = self.path(key)
        if not path.exists():
            return "not built yet"
        found, fault = _inspect(path)
        if fault is None and found != key.to_dict():
            return f"{path.name} is the plan of something else"
        return fault

    def read(self, key: PlanKey) -> bytes | None:
        """The plan of a key; None when there is none, or one that is damaged or foreign (said in the log)."""
        fault = self.fault(key)
        if fault is None:
            return self.path(key).read_bytes()
        if self.path(key).exists():
            log.warning("the plan for %s is built again: %s", key.engine, fault)
        return None

    def write(self, key: PlanKey, plan: bytes, facts: dict[str, Any]) -> Path:
        """Store a plan; the side-car comes last, so that an interrupted write leaves none that counts.

        Args:
            facts: more for the side-car, such as the time the build took.

        Raises:
            EngineError: the folder cannot be written.
        """
        path = self.path(key)
        sidecar = path.with_suffix(".json")
        try:
            sidecar.unlink(missing_ok=True)
            write_atomic(path, plan)
            record = {"key": key.to_dict(), "sha256": sha256_of(path), "bytes": len(plan), **facts}
            write_atomic(sidecar, (json.dumps(record, indent=2) + "\n").encode())
        except OSError as error:
            raise _cannot_write(path.parent, error) from error
        return path

    def discard(self, key: PlanKey) -> None:
        """Remove a plan that the library refuses."""
        for suffix in (".json", ".plan", ".jit"):
            self.path(key).with_suffix(suffix).unlink(missing_ok=True)

    def timing_cache(self, engine: str) -> Path:
        """The builder's timing cache, shared by all plans of an engine."""
        return self.folder / engine / _TIMING_CACHE

    @contextmanager
    def locked(self, key: PlanKey, timeout_s: float) -> Iterator[None]:
        """Be the only process that builds this plan. A process that dies gives the lock back.

        Raises:
            EngineError: another process holds it for longer than ``timeout_s``, or the folder cannot be written.
        """
        from filelock import FileLock, Timeout

        path = self.path(key).with_suffix(".lock")
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            lock = FileLock(path)
            lock.acquire(timeout=timeout_s)
        except Timeout as error:
            raise EngineError(
                f"another process has been building {key.file_name} for {timeout_s:.0f} s; end it or wait for it"
            ) from error
        except OSError as error:
            raise _cannot_write(path.parent, error) from error
        try:
            yield
        finally:
            lock.release()

    def plans(self) -> list[StoredPlan]:
        """Every plan in the folder, each checked by size and hash."""
        found = []
        for path in sorted(self.folder.glob("*/*.plan")):
            key, fault = _inspect(path)
            found.append(StoredPlan(path, path.parent.name, key, path.stat().st_size, fault))
        return found

    def clean(self, engine: str | None = None, model: str | None = None) -> list[Path]:
        """Remove plans with all that belongs to them; returns the files that are gone.

        Args:
            engine: only of this engine; None = of all.
            model: only of this model; None = of all, and the timing caches too.
        """
        removed = []
        for path in sorted(self.folder.glob(f"{engine or '*'}/*")):
            ours = path.suffix in _SUFFIXES and (model is None or path.stem.rpartition("-")[0] == model)
            if ours or (model is None and path.name == _TIMING_CACHE):
                path.unlink(missing_ok=True)
                removed.append(path)
        return removed


def _inspect(path: Path) -> tuple[dict[str, Any] | None, str | None]:
    """(key, fault) of a plan's file, from its side-car."""
    sidecar = path.with_suffix(".json")
    try:
        record = json.loads(sidecar.read_text(encoding="utf-8"))
        key, expected = dict(record["key"]), FileRecord(path.name, str(record["sha256"]), int(record["bytes"]))
    except FileNotFoundError:
        return None, f"{sidecar.name} is missing"
    except (OSError, ValueError, TypeError, KeyError) as error:
        return None, f"{sidecar.name} cannot be read ({type(error).__name__})"
    return key, find_fault(path, expected)


def write_atomic(path: Path, data: bytes) -> None:
    """Write a file under a temporary name and move it into place."""
    path.parent.mkdir(parents=True, exist_ok=True)
    number, name = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent)
    try:
        with os.fdopen(number, "wb") as stream:
            stream.write(data)
        os.replace(name, path)
    except BaseException:
        Path(name).unlink(missing_ok=True)
        raise


def _cannot_write(folder: Path, error: OSError) -> EngineError:
    return EngineError(
        f"{folder} cannot be written ({error.strerror or error}); set {FOLDER_VARIABLE} to a folder that can"
    )
