"""The face_landmarker.task bundle: a zip file with the nets and the canonical face."""

from __future__ import annotations

import zipfile
from pathlib import Path

from idm_rt.errors import ModelError

DETECTOR = "face_detector.tflite"
MESH = "face_landmarks_detector.tflite"
CANONICAL_FACE = "geometry_pipeline_metadata_landmarks.binarypb"


def read_member(task_path: Path | str, member: str) -> bytes:
    """One file out of the bundle.

    Raises:
        ModelError: the bundle is missing, broken or without that member.
    """
    hint = "run 'idm-rt models fetch' to get it"
    try:
        with zipfile.ZipFile(task_path) as bundle:
            return bundle.read(member)
    except FileNotFoundError as error:
        raise ModelError(f"no face landmarker at {task_path}; expected a face_landmarker.task there; {hint}") from error
    except (OSError, zipfile.BadZipFile, KeyError) as error:
        raise ModelError(f"{task_path} is not a usable face_landmarker.task ({error}); delete it and {hint}") from error
