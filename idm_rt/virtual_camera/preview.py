"""A window with the output's picture, mirrored as in a mirror."""

from __future__ import annotations

import logging
import queue
import subprocess
import sys
import threading
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Self

import cv2

from idm_rt.errors import ConfigError
from idm_rt.mailbox import LatestMailbox, MailboxClosed
from idm_rt.types import RgbImage
from idm_rt.virtual_camera.pictures import mirrored

log = logging.getLogger(__name__)

_TITLE = "idm-rt camera"
_CHILD = Path(__file__).with_name("preview_child.py")
_OPEN_WITHIN_S = 20.0


class PreviewWindow:
    """Shows the newest picture, in a process of its own.

    Qt ends the process that has no display, or loses it; and OpenCV's and PyAV's copies of the X libraries crash or
    hang when both are used in one process (a window and a captured screen). The camera must survive all of that.
    """

    def __init__(self, pictures: LatestMailbox[RgbImage], size: tuple[int, int]) -> None:
        """``pictures``: where the newest one lies; ``size``: (width, height) px of all of them."""
        self._pictures, self._size = pictures, size
        self._keys: queue.SimpleQueue[bytes] = queue.SimpleQueue()  # empty bytes: the window is gone
        self._child: subprocess.Popen[bytes] | None = None
        self.mirror = True

    def __enter__(self) -> Self:
        """Open it.

        Raises:
            ConfigError: this OpenCV or this session has no windows.
        """
        command = [sys.executable, "-P", str(_CHILD), _TITLE, *map(str, self._size)]
        self._child = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, start_new_session=True
        )
        threading.Thread(target=self._receive, args=(self._child,), name="idm-rt keys", daemon=True).start()
        try:
            opened = self._keys.get(timeout=_OPEN_WITHIN_S) == b"\0"
        except queue.Empty:
            opened = False
        if not opened:
            self.close()
            raise ConfigError("no preview window can be opened here (no display, or OpenCV without windows)")
        threading.Thread(target=self._send, args=(self._child,), name="idm-rt preview", daemon=True).start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Close the window; harmless when repeated."""
        child, self._child = self._child, None
        if child is None:
            return
        self._pictures.close()
        child.terminate()
        try:
            child.wait(0.5)
        except subprocess.TimeoutExpired:
            child.kill()
            child.wait()

    def keys(self) -> str:
        """The keys pressed in the window since the last call; never waits."""
        pressed = b""
        with suppress(queue.Empty):
            while True:
                pressed += self._keys.get_nowait()
        return pressed.decode("ascii", "ignore")

    def _receive(self, child: subprocess.Popen[bytes]) -> None:
        assert child.stdout is not None
        while data := child.stdout.read(1):
            self._keys.put(data)
        self._keys.put(b"")

    def _send(self, child: subprocess.Popen[bytes]) -> None:
        assert child.stdin is not None
        try:
            while True:
                image = self._pictures.get()
                shown = mirrored(image) if self.mirror else image
                child.stdin.write(cv2.cvtColor(shown, cv2.COLOR_RGB2BGR).tobytes())
                child.stdin.flush()
        except (MailboxClosed, OSError, ValueError):  # closed here, or by the user: the camera goes on without it
            log.debug("the preview window is closed")
