"""Files with a known size and SHA-256: how they are described and checked."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path

from idm_rt.errors import ModelError


@dataclass(frozen=True, slots=True)
class FileRecord:
    """What a file must be."""

    path: str  # relative to the folder that holds it, with forward slashes
    sha256: str  # 64 lower-case hexadecimal digits
    size: int  # bytes


def sha256_of(path: Path) -> str:
    """SHA-256 of a file, in hexadecimal."""
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def find_fault(path: Path, record: FileRecord) -> str | None:
    """Why ``path`` is not the recorded file, in words; None when it is.

    The size is compared first, so that a truncated file is named as one and costs no hashing.
    """
    try:
        if not path.is_file():
            return f"{path} is missing" if not path.exists() else f"{path} is not a file"
        size = path.stat().st_size
        if size != record.size:
            return f"{path} has {size} bytes, expected {record.size}"
        found = sha256_of(path)
    except OSError as error:
        return f"{path} cannot be read ({error.strerror or error})"
    if found != record.sha256:
        return f"{path} has sha256 {found}, expected {record.sha256}"
    return None


def check_file(path: Path, record: FileRecord, remedy: str) -> Path:
    """Return ``path`` if it is the recorded file.

    Args:
        remedy: what the user can do about a bad file; it ends the message.

    Raises:
        ModelError: missing, unreadable, or of another size or hash.
    """
    fault = find_fault(path, record)
    if fault is not None:
        raise ModelError(f"{fault}; {remedy}")
    return path
