"""A window with the output's picture, mirrored as in a mirror. On the main thread, as window systems want it."""

from __future__ import annotations

import logging
import subprocess
import sys
from types import TracebackType
from typing import Self

import cv2

from idm_rt.errors import ConfigError
from idm_rt.mailbox import LatestMailbox
from idm_rt.types import RgbImage
from idm_rt.virtual_camera.pictures import mirrored

log = logging.getLogger(__name__)

_TITLE = "idm-rt camera"
_PROBE = "import cv2; cv2.namedWindow('probe'); cv2.destroyAllWindows()"
_PROBE_WITHIN_S = 20.0


class PreviewWindow:
    """Shows the newest picture; closed by its own button as by the end of the ``with`` block."""

    def __init__(self, pictures: LatestMailbox[RgbImage]) -> None:
        """``pictures``: where the newest one lies."""
        self._pictures = pictures
        self._open = False

    def __enter__(self) -> Self:
        """Open it.

        Raises:
            ConfigError: this OpenCV or this session has no windows.
        """
        check_windows()
        cv2.namedWindow(_TITLE, cv2.WINDOW_NORMAL | cv2.WINDOW_KEEPRATIO)
        self._open = True
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._open:
            self._open = False
            cv2.destroyAllWindows()

    def update(self, mirror: bool) -> str:
        """Show the newest picture and return the key that was pressed in the window, or nothing."""
        if not self._open:
            return ""
        image = self._pictures.take()
        if image is not None:
            shown = mirrored(image) if mirror else image
            cv2.imshow(_TITLE, cv2.cvtColor(shown, cv2.COLOR_RGB2BGR))
        key = cv2.waitKey(1)
        if image is not None and cv2.getWindowProperty(_TITLE, cv2.WND_PROP_VISIBLE) < 1:
            self._open = False  # the user closed it; the camera goes on
        return chr(key & 0xFF) if key != -1 and 0 < key & 0xFF < 128 else ""


def check_windows() -> None:
    """Refuse where no window can be opened. Tried in a process of its own: Qt ends the process that tries in vain.

    Raises:
        ConfigError: with the reason.
    """
    try:
        done = subprocess.run([sys.executable, "-c", _PROBE], capture_output=True, timeout=_PROBE_WITHIN_S, check=False)
    except (OSError, subprocess.TimeoutExpired) as error:
        log.debug("the window probe failed: %s", error)
        raise ConfigError("no preview window can be opened (the trial did not end); leave out --preview") from error
    if done.returncode != 0:
        log.debug("the window probe said: %s", done.stderr.decode(errors="replace"))
        raise ConfigError("no preview window can be opened here (no display, or OpenCV without windows)")
