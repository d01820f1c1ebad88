"""The preview window: a real one on a virtual display, together with a captured screen; and none without a display."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from virtual_screen import Screen, free_screen

from idm_rt.errors import ConfigError
from idm_rt.mailbox import LatestMailbox
from idm_rt.virtual_camera.pictures import mirrored
from idm_rt.virtual_camera.preview import PreviewWindow

ROOT = Path(__file__).resolve().parents[2]

# In a process of its own: what has been loaded before, and in which order, is what matters here.
BOTH = """
import sys, time
import numpy as np
from idm_rt.mailbox import LatestMailbox
from idm_rt.virtual_camera.preview import PreviewWindow
from idm_rt.media.capture import Capture, screen_target
pictures = LatestMailbox()
source = Capture(screen_target(None), None, 10.0)
dark = source.read()
with PreviewWindow(pictures, (160, 120)) as window:
    end_s = time.monotonic() + 30.0
    while time.monotonic() < end_s:
        pictures.put(np.full((120, 160, 3), (250, 20, 20), np.uint8))
        image = source.read()
        red = (image[..., 0] > 200) & (image[..., 1] < 60) & (image[..., 2] < 60)
        if red.mean() > 0.02:
            sys.exit(0)
sys.exit("the window was not seen on the screen")
"""


@pytest.fixture
def screen():
    yield from free_screen()


def test_a_window_is_seen_on_the_captured_screen(screen: Screen) -> None:
    done = subprocess.run(
        [sys.executable, "-c", BOTH], cwd=ROOT, env={**os.environ, "DISPLAY": screen.name}, timeout=120,
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr


def test_without_a_display_it_is_refused_and_nothing_dies(monkeypatch: pytest.MonkeyPatch) -> None:
    if sys.platform != "linux":
        pytest.skip("other systems have their windows without a DISPLAY")
    monkeypatch.setenv("DISPLAY", ":963")
    with pytest.raises(ConfigError, match="no preview window"), PreviewWindow(LatestMailbox(), (64, 48)):
        pass


def test_the_display_goes_away_and_the_camera_does_not(screen: Screen, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DISPLAY", screen.name)
    pictures: LatestMailbox[np.ndarray] = LatestMailbox()
    with PreviewWindow(pictures, (64, 48)) as window:
        screen.end()
        for _ in range(20):
            pictures.put(np.zeros((48, 64, 3), np.uint8))
            assert window.keys() == ""
            time.sleep(0.02)


def test_a_mirror_swaps_left_and_right_alone() -> None:
    image = np.arange(2 * 3 * 3, dtype=np.uint8).reshape(2, 3, 3)
    assert np.array_equal(mirrored(image)[:, 0], image[:, 2]) and np.array_equal(mirrored(mirrored(image)), image)
