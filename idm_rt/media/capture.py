"""Cameras and screens, through FFmpeg's capture devices inside PyAV."""

from __future__ import annotations

import errno
import logging
import os
import re
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import av
import numpy as np
from av.video.frame import VideoFrame
from av.video.reformatter import Interpolation

from idm_rt.errors import ConfigError, MediaError
from idm_rt.types import RgbImage

log = logging.getLogger(__name__)

_CAMERA_FORMATS = {"linux": "v4l2", "darwin": "avfoundation", "win32": "dshow"}
_SCREEN_FORMATS = {"linux": "x11grab", "darwin": "avfoundation", "win32": "gdigrab"}
_ACCURATE = int(Interpolation.BILINEAR | Interpolation.ACCURATE_RND | Interpolation.FULL_CHR_H_INP)
_GONE = {errno.ENODEV, errno.ENXIO, errno.ENOENT}
_REFUSED = {errno.EACCES, errno.EPERM}


@dataclass(frozen=True, slots=True)
class CaptureDevice:
    """A camera as the system lists it."""

    index: int
    name: str  # what the system wants to open: /dev/video0, "Integrated Camera", "0"
    description: str  # for people


@dataclass(frozen=True, slots=True)
class CaptureTarget:
    """What is to be opened."""

    format: str  # FFmpeg's name of the capture device
    url: str
    label: str  # for messages


def list_cameras(platform: str = sys.platform) -> list[CaptureDevice]:
    """The cameras of this machine, in the system's order; empty if there is none or the system does not tell."""
    try:
        found = av.enumerate_input_devices(_camera_format(platform))
    except (av.FFmpegError, ValueError, OSError) as error:
        log.debug("cameras cannot be listed: %s", error)
        return []
    cameras = [device for device in found if not device.media_types or "video" in device.media_types]
    return [CaptureDevice(i, device.name, device.description or device.name) for i, device in enumerate(cameras)]


def camera_target(wanted: str | None, cameras: Sequence[CaptureDevice], platform: str = sys.platform) -> CaptureTarget:
    """The camera that is meant.

    Args:
        wanted: None = the first; a number, a device's name, or a part of the name that people see.
        cameras: see ``list_cameras``.

    Raises:
        MediaError: there is no such camera, or no single one.
    """
    name = _named(wanted, cameras, platform)
    url = f"video={name}" if platform == "win32" else f"{name}:none" if platform == "darwin" else name
    return CaptureTarget(_camera_format(platform), url, f"the camera {name}")


def _named(wanted: str | None, cameras: Sequence[CaptureDevice], platform: str) -> str:
    if wanted is None:
        if not cameras:
            raise MediaError("no camera was found; connect one, or choose --source screen, test or a file")
        return cameras[0].name
    if platform == "linux" and wanted.startswith("/dev/"):
        return wanted
    if wanted.isdigit():
        if platform == "linux":  # the number of /dev/videoN, as every other program counts
            return f"/dev/video{wanted}"
        matches = [camera for camera in cameras if camera.index == int(wanted)]
    else:
        exact = [camera for camera in cameras if wanted in (camera.name, camera.description)]
        part = [camera for camera in cameras if wanted.lower() in f"{camera.description} {camera.name}".lower()]
        matches = exact or part
    if len(matches) == 1:
        return matches[0].name
    listed = ", ".join(f"{camera.name} ({camera.description})" for camera in cameras) or "none"
    problem = "no camera is" if not matches else f"{len(matches)} cameras are"
    raise MediaError(f"{problem} called {wanted!r}; found: {listed}; see idm-rt camera --list")


def check_load_order() -> None:
    """Refuse to capture an X display in a process that loaded OpenCV before PyAV.

    Both packages bring their own X libraries, of the same names; PyAV crashes with OpenCV's (seen with PyAV 18.1 and
    OpenCV 5.0). The other way round capture works.

    Raises:
        ConfigError: it did.
    """
    order = list(sys.modules)
    if "cv2" in order and order.index("cv2") < order.index("av"):
        raise ConfigError("the screen cannot be captured: OpenCV was loaded before PyAV; import av before cv2")


def screen_target(wanted: str | None, platform: str = sys.platform) -> CaptureTarget:
    """The screen that is meant.

    Args:
        wanted: None = the main screen; on Linux a display such as ``:1``, on macOS the number of the screen.

    Raises:
        ConfigError: no screen can be captured here.
    """
    capture = _SCREEN_FORMATS.get(platform)
    if capture == "x11grab":
        display = wanted or os.environ.get("DISPLAY", "")
        if not display:
            raise ConfigError("there is no X display (DISPLAY is not set); name one, e.g. --source screen::0")
        return CaptureTarget(capture, display, f"the screen {display}")
    if capture == "gdigrab":
        return CaptureTarget(capture, "desktop", "the screen")
    if capture == "avfoundation":
        screen = f"Capture screen {wanted or 0}"
        return CaptureTarget(capture, f"{screen}:none", f"the screen {wanted or 0}")
    raise ConfigError(f"screens cannot be captured on {platform}; name a camera or a file")


class Capture:
    """An open camera or screen. ``read`` blocks; for one thread."""

    def __init__(self, target: CaptureTarget, size: tuple[int, int] | None, fps: float) -> None:
        """Open it.

        Args:
            size: (width, height) px to ask a camera for; None = its own. It may give another.
            fps: pictures a second to ask for; it may give others.

        Raises:
            MediaError: it is absent, busy, forbidden, or no camera at all.
        """
        self._label = target.label
        self._container = _open(target, size, fps)
        if not self._container.streams.video:
            self._container.close()
            raise MediaError(f"{target.label} gives no picture; choose another, see idm-rt camera --list")
        self._stream = self._container.streams.video[0]
        self._stream.thread_type = "SLICE"  # frame threads would keep some pictures back
        rate = float(self._stream.average_rate or 0.0)
        self.interval_s = 1.0 / rate if 1.0 <= rate <= 240.0 else 1.0 / fps
        self._frames = self._decode()

    def read(self) -> RgbImage | None:
        """The next picture, (H, W, 3) uint8 RGB; None if the device says that it ends.

        Raises:
            MediaError: it is lost.
        """
        try:
            frame = next(self._frames, None)
        except (av.FFmpegError, OSError) as error:
            raise MediaError(f"{self._label} was lost ({_reason(error)})") from error
        if frame is None:
            return None
        return np.asarray(frame.to_ndarray(format="rgb24", interpolation=_ACCURATE), dtype=np.uint8)

    def close(self) -> None:
        """Release the device."""
        self._container.close()

    def _decode(self) -> Iterator[VideoFrame]:
        for packet in self._container.demux(self._stream):
            try:
                yield from packet.decode()
            except av.error.InvalidDataError:  # cameras send a broken JPEG now and then
                log.debug("%s: a picture was broken", self._label)


def _open(target: CaptureTarget, size: tuple[int, int] | None, fps: float) -> av.container.InputContainer:
    if target.format == "x11grab":
        check_load_order()
    known = {name for names in av.formats_available for name in names.split(",")}
    if target.format not in known:
        raise MediaError(f"this PyAV cannot capture with {target.format}; pip install --force-reinstall av")
    error: av.FFmpegError | OSError | None = None
    for options in _attempts(target, size, fps):
        try:
            return av.open(target.url, format=target.format, options=options)
        except (av.FFmpegError, OSError) as caught:
            error = caught
            if error.errno in _GONE | _REFUSED | {errno.EBUSY}:
                break  # other settings do not help
    assert error is not None
    raise MediaError(_explain(target, error)) from error


def _attempts(target: CaptureTarget, size: tuple[int, int] | None, fps: float) -> Iterator[dict[str, str]]:
    """Options to try, the wish first: some systems refuse what a camera does not offer instead of taking the nearest.

    Cameras on USB 2 give large pictures at full rate as JPEG only.
    """
    rate = {"framerate": f"{fps:g}"}
    if target.format in ("x11grab", "gdigrab") or "Capture screen" in target.url:
        yield {**rate, "draw_mouse": "1"} if target.format != "avfoundation" else {**rate, "capture_cursor": "1"}
        return
    wish = {**rate, "video_size": f"{size[0]}x{size[1]}"} if size else rate
    if target.format == "v4l2":
        yield {**wish, "input_format": "mjpeg"}
    yield wish
    yield rate
    yield {}


def _explain(target: CaptureTarget, error: av.FFmpegError | OSError) -> str:
    number, label = error.errno, target.label
    if number == errno.EBUSY:
        return f"{label} is busy; close the other program that uses it (or --wait for it)"
    if number in _REFUSED:
        return f"{label} may not be opened (permission denied); {_permission_cure(target)}"
    if number in _GONE:
        return f"{label} does not exist; idm-rt camera --list shows what there is"
    if number in (errno.ENOTTY, errno.EINVAL) and target.format == "v4l2":
        return f"{label} is no camera that can be read ({_reason(error)}); idm-rt camera --list shows what there is"
    if target.format == "x11grab":
        return f"{label} cannot be opened ({_reason(error)}); check DISPLAY and the access rights of the X server"
    return f"{label} cannot be opened ({_reason(error)}); is it in use, and may this program use it?"


def _permission_cure(target: CaptureTarget) -> str:
    if target.format == "v4l2":
        return 'sudo usermod -aG video "$USER", then log in again'
    if target.format == "avfoundation":
        return "allow the terminal in System Settings > Privacy & Security (Camera, Screen Recording)"
    return "allow desktop apps in Settings > Privacy & security > Camera"


def _reason(error: av.FFmpegError | OSError) -> str:
    text = error.strerror or str(error)
    return re.sub(r"\s+", " ", text).strip().lower() or type(error).__name__


def _camera_format(platform: str) -> str:
    name = _CAMERA_FORMATS.get(platform)
    if name is None:
        raise ConfigError(f"cameras are not supported on {platform}; use --source screen, test or a file")
    return name
