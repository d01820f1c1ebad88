"""Cameras by name and number, errors in one line, and a real screen that is captured, lost and found again."""

from __future__ import annotations

import errno
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import av
import pytest
from virtual_screen import Screen, free_screen

from idm_rt.errors import ConfigError, MediaError
from idm_rt.media import capture
from idm_rt.media.capture import Capture, CaptureDevice, CaptureTarget, camera_target, list_cameras, screen_target

ROOT = Path(__file__).resolve().parents[2]

FRONT = CaptureDevice(0, "/dev/video0", "Integrated Camera: Front")
LOGI = CaptureDevice(1, "/dev/video2", "Logitech BRIO")
IR = CaptureDevice(2, "/dev/video4", "Integrated Camera: Infrared")
CAMERAS = [FRONT, LOGI, IR]


@pytest.mark.parametrize(
    ("wanted", "platform", "url"),
    [
        (None, "linux", "/dev/video0"),
        ("2", "linux", "/dev/video2"),  # the number in the device's name
        ("/dev/video7", "linux", "/dev/video7"),
        ("brio", "linux", "/dev/video2"),
        ("Integrated Camera: Infrared", "linux", "/dev/video4"),
        ("brio", "win32", "video=/dev/video2"),
        ("1", "win32", "video=/dev/video2"),  # the place in the list
        ("1", "darwin", "/dev/video2:none"),
    ],
)
def test_cameras_by_name_and_number(wanted: str | None, platform: str, url: str) -> None:
    assert camera_target(wanted, CAMERAS, platform).url == url


@pytest.mark.parametrize(
    ("wanted", "cameras", "words"),
    [
        (None, [], "no camera was found"),
        ("nikon", CAMERAS, "no camera is called 'nikon'; found: /dev/video0"),
        ("integrated", CAMERAS, "2 cameras are called 'integrated'"),
        ("x", [], "found: none"),
    ],
)
def test_a_camera_that_is_not_there_is_one_line(wanted: str | None, cameras: list[CaptureDevice], words: str) -> None:
    with pytest.raises(MediaError, match=words) as caught:
        camera_target(wanted, cameras, "linux")
    assert "\n" not in str(caught.value)


def test_listing_never_fails() -> None:
    assert isinstance(list_cameras(), list)
    assert list_cameras("win32") == [] or os.name == "nt"  # dshow is not in this build


@pytest.mark.parametrize(
    ("number", "words"),
    [
        (errno.EBUSY, "is busy; close the other program"),
        (errno.EACCES, 'permission denied.*usermod -aG video "\\$USER"'),
        (errno.ENOENT, "does not exist; idm-rt camera --list"),
        (errno.ENODEV, "does not exist"),
        (errno.EINVAL, "is no camera that can be read"),
        (errno.EIO, "cannot be opened"),
    ],
)
def test_what_the_system_refuses_is_one_line(monkeypatch: pytest.MonkeyPatch, number: int, words: str) -> None:
    tried = []

    def refuse(url: str, **more: object) -> None:
        tried.append(more["options"])
        raise av.error.OSError(number, os.strerror(number), url)

    monkeypatch.setattr(capture.av, "open", refuse)
    with pytest.raises(MediaError, match=words) as caught:
        Capture(CaptureTarget("v4l2", "/dev/video0", "the camera /dev/video0"), (1280, 720), 30.0)
    assert "\n" not in str(caught.value)
    assert tried[0] == {"framerate": "30", "video_size": "1280x720", "input_format": "mjpeg"}
    assert len(tried) == (4 if number in (errno.EINVAL, errno.EIO) else 1)  # other settings do not free a busy camera


@pytest.mark.skipif(not Path("/dev/null").exists(), reason="no /dev/null")
def test_real_device_files_that_are_no_cameras() -> None:
    for url in ("/dev/null", "/dev/video963"):
        with pytest.raises(MediaError, match="idm-rt camera --list"):
            Capture(CaptureTarget("v4l2", url, f"the camera {url}"), None, 30.0)


def test_no_display_is_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("DISPLAY", raising=False)
    with pytest.raises(ConfigError, match="DISPLAY is not set"):
        screen_target(None, "linux")
    assert screen_target(None, "win32").url == "desktop"
    assert screen_target("1", "darwin").url == "Capture screen 1:none"
    with pytest.raises(ConfigError, match="cannot be captured on plan9"):
        screen_target(None, "plan9")


SCREEN = """
import av, sys
from idm_rt.errors import MediaError
from idm_rt.media.capture import Capture, screen_target
source = Capture(screen_target(None, "linux"), None, 20.0)
assert abs(source.interval_s - 0.05) < 0.001, source.interval_s
images = [source.read() for _ in range(5)]
assert all(image.shape == (240, 320, 3) and image.dtype == "uint8" for image in images)
print("reading", flush=True)
try:
    while True:
        source.read()
except MediaError as error:
    print(error, flush=True)
source.close()
try:
    Capture(screen_target(None, "linux"), None, 20.0)
except MediaError as error:
    print(error, flush=True)
"""


@pytest.fixture
def screen() -> Iterator[Screen]:
    yield from free_screen()


def run_alone(code: str, **environment: str) -> subprocess.Popen[str]:
    """In a process of its own: the order in which libraries are loaded matters here."""
    return subprocess.Popen(
        [sys.executable, "-c", code], cwd=ROOT, env={**os.environ, **environment}, text=True,
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
    )  # fmt: skip


def test_a_real_screen_gives_pictures_at_its_rate_until_it_is_lost(screen: Screen) -> None:
    child = run_alone(SCREEN, DISPLAY=screen.name)
    assert child.stdout is not None
    try:
        assert child.stdout.readline() == "reading\n"
        screen.end()
        rest, _ = child.communicate(timeout=60)
    finally:
        child.kill()
    lost, refused = rest.splitlines()
    assert lost.startswith(f"the screen {screen.name} was lost") and "check DISPLAY" in refused


def test_a_process_that_would_crash_is_refused(screen: Screen) -> None:
    code = "import cv2, av; from idm_rt.media.capture import *; Capture(screen_target(None), None, 20.0)"
    out, _ = run_alone(code, DISPLAY=screen.name).communicate(timeout=60)
    assert out.splitlines()[-1].endswith("OpenCV was loaded before PyAV; import av before cv2")


@pytest.mark.parametrize("first", ["idm_rt.virtual_camera", "idm_rt.cli.camera", "idm_rt.virtual_camera.composer"])
def test_the_camera_loads_them_in_the_right_order(first: str) -> None:
    code = f"import {first}; from idm_rt.media.capture import check_load_order; check_load_order()"
    out, _ = run_alone(code).communicate(timeout=60)
    assert out == ""
