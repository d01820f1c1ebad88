"""Output files: refused or accepted before any work, written beside their final name, moved into place at the end."""

from __future__ import annotations

import errno
import os
import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from idm_rt.errors import MediaError

_FULL = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}


def check_output(path: Path, *, source: Path | None, overwrite: bool) -> None:
    """Refuse an output that could not be written, or that would destroy something, before any long work.

    Raises:
        MediaError: the folder is missing or not writable, the output exists and ``overwrite`` is false, the output
            is a folder, or the output is the input itself (also through a link).
    """
    if source is not None and _same_file(path, source):
        raise MediaError(f"the output {path} is the input itself; choose another name for the output")
    if path.is_dir():
        raise MediaError(f"the output {path} is a folder, expected a file name; add a name such as {path / 'out.mp4'}")
    if not path.parent.is_dir():
        raise MediaError(f"the output folder {path.parent} does not exist; create it or choose another folder")
    if os.path.lexists(path) and not overwrite:
        raise MediaError(f"the output {path} exists already; add --overwrite to replace it or choose another name")
    if not os.access(path.parent, os.W_OK | os.X_OK):
        raise MediaError(f"the output folder {path.parent} is not writable; choose another folder or change its rights")


def _same_file(path: Path, other: Path) -> bool:
    try:
        return os.path.samefile(path, other)
    except OSError:  # one of them does not exist: they cannot be the same
        return False


class PendingFile:
    """A file under a temporary name beside its final one, until ``commit`` or ``discard``.

    The file itself is created by whoever writes ``temporary``, with the rights of an ordinary new file.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.temporary = temporary_name(path)

    def commit(self) -> None:
        """Move the file to its final name, replacing what is there.

        Raises:
            MediaError: the move failed.
        """
        with os_errors(self.path):
            os.replace(self.temporary, self.path)

    def discard(self) -> None:
        """Delete the file; harmless if it was never created."""
        self.temporary.unlink(missing_ok=True)


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Yield a temporary name to write; it becomes ``path`` on success and is deleted on any exception, Ctrl-C too."""
    pending = PendingFile(path)
    try:
        yield pending.temporary
        pending.commit()
    except BaseException:
        pending.discard()
        raise


def temporary_name(path: Path) -> Path:
    """A hidden, unused name beside ``path`` that no one takes for a finished file."""
    return path.with_name(f".{path.name[:80]}.{secrets.token_hex(4)}.part")


@contextmanager
def os_errors(path: Path) -> Iterator[None]:
    """Turn an ``OSError`` of the body (PyAV's are among them) into a one-line ``MediaError`` about writing ``path``."""
    try:
        yield
    except OSError as error:
        raise write_error(error, path) from error


def write_error(error: OSError, path: Path) -> MediaError:
    """The ``MediaError`` that says what stopped the writing of ``path``."""
    if error.errno in _FULL:
        return MediaError(f"cannot write {path}: the disk is full (or the file size limit is reached); free some space")
    if error.errno in (errno.EACCES, errno.EPERM, errno.EROFS):
        return MediaError(f"cannot write {path}: permission denied; choose another folder or change its rights")
    reason = error.strerror or str(error) or type(error).__name__
    return MediaError(f"cannot write {path}: {reason}; check the folder and try again")


def check_input(path: Path) -> None:
    """Refuse an input that is missing, a folder, empty or unreadable.

    Raises:
        MediaError: with what was found.
    """
    if not path.exists():
        raise MediaError(f"the input {path} does not exist; check the name")
    if path.is_dir():
        raise MediaError(f"the input {path} is a folder, expected a file; name a file in it")
    if not path.is_file():
        raise MediaError(f"the input {path} is not an ordinary file; save it to a file first")
    try:
        with path.open("rb") as file:
            head = file.read(1)
    except OSError as error:
        raise MediaError(f"the input {path} cannot be read ({error.strerror}); check its permissions") from error
    if not head:
        raise MediaError(f"the input {path} is empty (0 bytes); record or copy it again")
