"""A virtual X display for tests, where Debian's xvfb is installed."""

from __future__ import annotations

import os
import shutil
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest


class Screen:
    """A running display of 320 by 240 px."""

    def __init__(self, number: int) -> None:
        self.number, self.name = number, f":{number}"
        self.start()

    def start(self) -> None:
        command = ["Xvfb", self.name, "-screen", "0", "320x240x24", "-nolisten", "tcp", "-noreset"]
        self._process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        end_s = time.monotonic() + 30.0
        while not Path(f"/tmp/.X11-unix/X{self.number}").exists():
            assert self._process.poll() is None and time.monotonic() < end_s, "Xvfb did not start"
            time.sleep(0.02)
        time.sleep(0.5)

    def end(self) -> None:
        self._process.terminate()
        self._process.wait(10)


def free_screen() -> Iterator[Screen]:
    """For a fixture: ``yield from free_screen()``."""
    if shutil.which("Xvfb") is None:
        pytest.skip("Xvfb is not installed (Debian: xvfb)")
    screen = Screen(200 + os.getpid() % 500)
    try:
        yield screen
    finally:
        screen.end()
