"""The process behind the preview window: ``python -P preview_child.py TITLE WIDTH HEIGHT``.

Pictures come in on standard input as bare BGR bytes; keys go out on standard output, one byte each, after one zero byte
that says that the window is open. A file of its own that imports nothing of this package: see ``preview.py``.
"""

from __future__ import annotations

import sys
import threading

import cv2
import numpy as np

_READY = b"\0"


def main(title: str, width: int, height: int) -> None:
    """Show the newest picture until the input ends or the user closes the window."""
    cv2.namedWindow(title, cv2.WINDOW_NORMAL | cv2.WINDOW_KEEPRATIO | cv2.WINDOW_GUI_NORMAL)
    cv2.resizeWindow(title, min(width, 960), round(height * min(1.0, 960 / width)))
    send(_READY)
    newest: list[np.ndarray] = []
    ended = threading.Event()
    threading.Thread(target=receive, args=(width, height, newest, ended), daemon=True).start()
    shown = False
    while not ended.is_set():
        if newest:
            cv2.imshow(title, newest[-1])
            shown = True
        key = cv2.waitKey(20)
        if 0 < key & 0xFF < 128 and key != -1:
            send(bytes([key & 0xFF]))
        if shown and cv2.getWindowProperty(title, cv2.WND_PROP_VISIBLE) < 1:
            return


def receive(width: int, height: int, newest: list[np.ndarray], ended: threading.Event) -> None:
    """Keep the newest picture of the input."""
    size = width * height * 3
    while len(data := sys.stdin.buffer.read(size)) == size:
        newest[:] = [np.frombuffer(data, np.uint8).reshape(height, width, 3)]
    ended.set()


def send(data: bytes) -> None:
    """Tell the parent at once."""
    sys.stdout.buffer.write(data)
    sys.stdout.buffer.flush()


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]), int(sys.argv[3]))
