"""model.json: what a restorer model is, read and validated once; see ``ModelManifest`` for the fields."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

from idm_rt.errors import ModelError
from idm_rt.model_files import FileRecord, check_file

MANIFEST_NAME = "model.json"
SCHEMA = 1


@dataclass(frozen=True, slots=True)
class ModelManifest:
    """One restorer model and the folder that holds its files."""

    folder: Path
    name: str
    version: str
    licence: str
    crop_size: int  # side of the aligned crop, px
    align_template: tuple[tuple[float, float], ...]  # five (x, y), fractions of the side; see idm_rt.geometry
    steps: tuple[int, ...]  # numbers of diffusion steps the model was trained for
    kappa: float  # noise level of the bridge; see idm_rt.diffusion
    network: Mapping[str, Any]  # DenoiserConfig as a dictionary
    files: Mapping[str, FileRecord]  # by kind: onnx, weights, maybe onnx_fp16
    tolerance: Mapping[str, float]  # smallest PSNR in dB against the f32 reference: f32_db, bf16_db, fp16_db
    training: Mapping[str, Any]  # free: how it was made

    def has(self, kind: str) -> bool:
        """Whether the model comes with a file of this kind."""
        return kind in self.files

    def verified_file(self, kind: str) -> Path:
        """Path of a file whose size and SHA-256 were just checked.

        Raises:
            ModelError: no such kind in this model, or the file is missing or not the recorded one.
        """
        if kind not in self.files:
            raise ModelError(
                f"model {self.name!r} has no {kind} file, only {', '.join(sorted(self.files))}; choose another engine"
            )
        record = self.files[kind]
        return check_file(self.folder / record.path, record, f"restore the folder of model {self.name!r} or reinstall")


def load_manifest(folder: str | Path) -> ModelManifest:
    """Read ``folder``/model.json. The files it names are not opened; see ``ModelManifest.verified_file``.

    Raises:
        ModelError: no manifest, not JSON, another schema, or a field that is missing or out of range.
    """
    folder = Path(folder)
    path = folder / MANIFEST_NAME
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise ModelError(f"{folder} holds no {MANIFEST_NAME}; name a folder written by the export") from None
    except OSError as error:
        raise ModelError(f"{path} cannot be read ({error.strerror or error}); check its permissions") from error
    except ValueError as error:
        raise ModelError(f"{path} is not JSON ({error}); restore it or export the model again") from error
    return parse_manifest(values, folder)


def parse_manifest(values: Any, folder: Path) -> ModelManifest:
    """Validate the content of a model.json.

    Raises:
        ModelError: see ``load_manifest``.
    """
    where = folder / MANIFEST_NAME
    if not isinstance(values, dict) or values.get("schema") != SCHEMA:
        found = values.get("schema") if isinstance(values, dict) else type(values).__name__
        raise ModelError(f"{where} has schema {found!r}, expected {SCHEMA}; install the idm_rt version it was made for")

    def read(key: str, parse: Callable[[Any], Any]) -> Any:
        if key not in values:
            raise ModelError(f"{where} lacks the field {key!r}; export the model again")
        try:
            return parse(values[key])
        except (TypeError, ValueError, KeyError) as error:
            reason = f"missing {error}" if isinstance(error, KeyError) else str(error)
            raise ModelError(f"{where}: field {key!r} is not valid ({reason}); export the model again") from error

    return ModelManifest(
        folder=folder,
        name=read("name", _text),
        version=read("version", _text),
        licence=read("licence", _text),
        crop_size=read("crop_size", _positive_int),
        align_template=read("align_template", _five_points),
        steps=read("steps", _steps),
        kappa=read("kappa", _non_negative),
        network=read("network", _mapping),
        files=read("files", _files),
        tolerance=read("tolerance", lambda v: {k: _non_negative(x) for k, x in _mapping(v).items()}),
        training=read("training", _mapping),
    )


def _text(value: Any) -> str:
    if not isinstance(value, str) or not value.strip():
        raise ValueError(f"expected a text, found {value!r}")
    return value


def _positive_int(value: Any) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or value < 1:
        raise ValueError(f"expected a whole number from 1, found {value!r}")
    return value


def _non_negative(value: Any) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value) or value < 0:
        raise ValueError(f"expected a number, 0 or more, found {value!r}")
    return float(value)


def _mapping(value: Any) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise ValueError(f"expected an object, found {value!r}")
    return dict(value)


def _five_points(value: Any) -> tuple[tuple[float, float], ...]:
    points = tuple((_non_negative(x), _non_negative(y)) for x, y in value)
    if len(points) != 5:
        raise ValueError(f"expected five points, found {len(points)}")
    return points


def _steps(value: Any) -> tuple[int, ...]:
    if not isinstance(value, list) or not value:
        raise ValueError(f"expected a list of whole numbers, found {value!r}")
    return tuple(_positive_int(v) for v in value)


def _files(value: Any) -> dict[str, FileRecord]:
    records = {kind: _file_record(entry) for kind, entry in _mapping(value).items()}
    if "onnx" not in records:
        raise ValueError("expected an entry 'onnx'")
    return records


def _file_record(entry: Any) -> FileRecord:
    path, sha256, size = _text(entry["path"]), _text(entry["sha256"]).lower(), _positive_int(entry["bytes"])
    parts = PurePosixPath(path)
    if parts.is_absolute() or ".." in parts.parts or "\\" in path or ":" in path:
        raise ValueError(f"expected a path inside the model's folder, found {path!r}")
    if len(sha256) != 64 or any(c not in "0123456789abcdef" for c in sha256):
        raise ValueError(f"expected 64 hexadecimal digits as sha256, found {sha256!r}")
    return FileRecord(path, sha256, size)
