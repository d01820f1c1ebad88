"""An engine that works now, and a faster one that takes over when it is ready."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Iterable
from typing import Any

from idm_rt.backends.base import Backend, DeviceSampler
from idm_rt.backends.device_clock import DeviceClock
from idm_rt.errors import IdmError

log = logging.getLogger(__name__)

OpenBetter = Callable[[threading.Event], Backend]  # the event asks it to give up


class SwappingBackend(Backend):
    """Runs ``current`` while a thread opens a better engine, then that one. If it cannot be opened, all stays as it is.

    The change is made between two calls, on the caller's thread, so no call is ever cut or waits for the build.
    """

    def __init__(self, current: Backend, open_better: OpenBetter) -> None:
        """Start opening at once.

        Args:
            current: is owned from now on; has the size of the better one.
            open_better: runs on a thread of its own; returns the better engine warmed up.
        """
        self._current: Backend | None = current
        self._better: Backend | None = None
        self._closed = threading.Event()
        self._lock = threading.Lock()  # around _better and the decision who closes it
        self.size = current.size
        self._thread = threading.Thread(target=self._open, args=(open_better,), name="idm-rt engine build", daemon=True)
        self._thread.start()

    @property
    def name(self) -> str:  # type: ignore[override]  # changes with the engine
        return self.current.name

    @property
    def precision(self) -> str:  # type: ignore[override]
        return self.current.precision

    @property
    def precision_reason(self) -> str:  # type: ignore[override]
        return self.current.precision_reason

    @property
    def device(self) -> str:  # type: ignore[override]
        return self.current.device

    @property
    def current(self) -> Backend:
        """The engine that the next call runs on; takes the better one over if it is ready.

        Raises:
            ValueError: the backend is closed.
        """
        with self._lock:
            old, better = self._current, self._better
            if old is None:
                raise ValueError("the backend is closed")
            if better is None:
                return old
            self._current, self._better = better, None
        log.info("%s (%s) takes over from %s", better.name, better.precision, old.name)
        old.close()
        return better

    def denoise(self, x_t: Any, y: Any, t: float) -> Any:
        return self.current.denoise(x_t, y, t)

    def on_device(self, steps: int) -> DeviceSampler | None:
        return self.current.on_device(steps)

    def device_clock(self) -> DeviceClock | None:
        return self.current.device_clock()

    def warm_up(self, batch_sizes: Iterable[int] = (1,)) -> None:
        self.current.warm_up(batch_sizes)

    def wait(self, timeout_s: float | None = None) -> bool:
        """Wait until the better engine is there or given up; False if that takes longer."""
        self._thread.join(timeout_s)
        return not self._thread.is_alive()

    def close(self) -> None:
        self._closed.set()
        with self._lock:
            engines = [self._current, self._better]
            self._current = self._better = None
        for engine in engines:
            if engine is not None:
                engine.close()

    def _open(self, open_better: OpenBetter) -> None:
        try:
            better = open_better(self._closed)
        except IdmError as error:
            if not self._closed.is_set():
                log.warning("going on with the engine in use: %s", error)
            return
        except Exception:  # a bug in there must not end a call that runs well without it
            log.warning("going on with the engine in use, the better one failed to open", exc_info=True)
            return
        with self._lock:
            if not self._closed.is_set():
                self._better = better
                return
        better.close()
