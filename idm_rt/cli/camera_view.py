"""What the user of ``idm-rt camera`` sees and presses: keys, status line, preview window, control page."""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Callable
from contextlib import ExitStack
from types import TracebackType
from typing import Self

from idm_rt.cli.output import Console
from idm_rt.errors import ConfigError, IdmError
from idm_rt.virtual_camera.control_input import KEYS_HELP, press
from idm_rt.virtual_camera.control_page import ControlPage
from idm_rt.virtual_camera.preview import PreviewWindow
from idm_rt.virtual_camera.status_text import status_line
from idm_rt.virtual_camera.terminal import StatusLine, TerminalKeys
from idm_rt.virtual_camera.virtual_camera import VirtualCamera

_STATUS_EVERY_S = 0.5


class CameraView:
    """Opened as a context manager; ``update`` is called many times a second, on the main thread."""

    def __init__(
        self, camera: VirtualCamera, options: argparse.Namespace, console: Console, say: Callable[[str], None]
    ) -> None:
        """``say`` prints a line for the user."""
        self._camera, self._options, self._console, self._say = camera, options, console, say
        self._mirror = not options.no_mirror
        self._stack = ExitStack()
        self._keys, self._line = TerminalKeys(), StatusLine(sys.stderr)
        self._window: PreviewWindow | None = None
        self._next_status_s = 0.0

    def __enter__(self) -> Self:
        with ExitStack() as stack:
            if not self._options.no_page:
                self._open_page(stack)
            if self._options.preview:
                self._open_window(stack)
            stack.enter_context(self._keys)
            if self._keys.active:
                self._say(f"keys: {KEYS_HELP}")
            self._console.pin(self._line)
            stack.callback(self._unpin)
            self._stack = stack.pop_all()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stack.close()

    def update(self) -> bool:
        """Serve keys, window and status line; False if the user wants to end."""
        pressed = self._keys.read()
        if self._window is not None:
            self._window.mirror = self._mirror
            pressed += self._window.keys()
        for key in pressed:
            if not self._press(key):
                return False
        now_s = time.monotonic()
        if self._line.active and (pressed or now_s >= self._next_status_s):
            self._next_status_s = now_s + _STATUS_EVERY_S
            self._line.show(status_line(self._camera.status()))
        return True

    def _press(self, key: str) -> bool:
        effect = press(key, self._camera.controls, self._mirror)
        self._mirror = effect.mirror
        if effect.controls != self._camera.controls:
            try:
                self._camera.set_controls(effect.controls)
            except ValueError as error:
                self._console.warn(str(error))
        return not effect.quit

    def _open_page(self, stack: ExitStack) -> None:
        page = ControlPage(self._camera, self._options.page_port or 0)
        try:
            stack.enter_context(page)
        except IdmError as error:
            if self._options.page_port is not None:  # asked for
                raise
            self._console.warn(str(error))
            return
        self._say(f"control page: {page.url}")

    def _open_window(self, stack: ExitStack) -> None:
        window = PreviewWindow(self._camera.preview, self._camera.options.size)
        try:
            self._window = stack.enter_context(window)
        except ConfigError as error:  # the camera is of use without it
            self._console.warn(str(error))

    def _unpin(self) -> None:
        self._line.close()
        self._console.pin(None)
