"""The real command line, in this process or in its own, on small real files."""

from __future__ import annotations

import subprocess
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pytest
from cli_tools import Cli, Outcome, command

from idm_rt.cli import main
from idm_rt.model_files import find_fault
from idm_rt.model_store import FACE_LANDMARKER, cache_dir


@pytest.fixture
def cli(capfd: pytest.CaptureFixture[str]) -> Cli:
    """``cli("enhance", input, output)`` runs the command in this process."""

    def run(*arguments: object) -> Outcome:
        capfd.readouterr()
        code = main([str(argument) for argument in arguments])
        captured = capfd.readouterr()
        return Outcome(code, captured.out, captured.err)

    return run


@pytest.fixture
def cli_process() -> Cli:
    """The same as ``cli``, in a process of its own."""

    def run(*arguments: object, before: Callable[[], None] | None = None) -> Outcome:
        done = subprocess.run(
            command(*arguments), capture_output=True, text=True, timeout=300, check=False, preexec_fn=before
        )
        return Outcome(done.returncode, done.stdout, done.stderr)

    return run


@pytest.fixture
def models(tiny_folder: Path) -> Sequence[object]:
    """Options that choose the small model; skips where the landmark model was not fetched."""
    record = FACE_LANDMARKER.record
    if find_fault(cache_dir() / record.path, record) is not None:
        pytest.skip("face_landmarker.task is not in the cache: idm-rt models fetch")
    return ("--model", tiny_folder)


@pytest.fixture(scope="session")
def portrait() -> np.ndarray:
    """(512, 512, 3) uint8 RGB: a blurred face in the upper half (NASA, public domain); a sharp one is left alone."""
    import cv2
    from skimage.data import astronaut

    return np.asarray(cv2.GaussianBlur(astronaut(), (0, 0), 2.5), dtype=np.uint8)
