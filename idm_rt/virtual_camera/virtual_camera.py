"""The virtual camera: a source, the live worker and an output of constant rate, each on a thread of its own."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable
from types import TracebackType
from typing import Self

from idm_rt.engine_thread import LiveEnhancer, WorkerOptions
from idm_rt.errors import IdmError, MediaError
from idm_rt.mailbox import LatestMailbox
from idm_rt.timing import Clock
from idm_rt.types import Frame, RgbImage
from idm_rt.virtual_camera.composer import Composer
from idm_rt.virtual_camera.output import OutputLoop
from idm_rt.virtual_camera.pictures import fit
from idm_rt.virtual_camera.records import CameraControls, CameraOptions, CameraStatus, SourceStatus
from idm_rt.virtual_camera.sinks import OutputEnded, SinkKeeper
from idm_rt.virtual_camera.source_keeper import OpenSource, SourceKeeper
from idm_rt.worker import PipelineWorker

log = logging.getLogger(__name__)

_CLOSE_WITHIN_S = 2.4  # with what the program does around it, below three seconds


class VirtualCamera:
    """Shows an enhanced source on a sink, at a constant rate, until it is closed.

    Whatever happens to the source or the engine, a picture goes out at every tick: the enhanced one, else the
    original, else (0.5 s after the last frame) a placeholder. Use it as a context manager, or ``start`` and ``close``.
    """

    def __init__(
        self,
        open_source: OpenSource,
        open_sink: Callable[[], SinkKeeper],
        open_enhancer: Callable[[], LiveEnhancer],
        options: CameraOptions | None = None,
        controls: CameraControls | None = None,
        *,
        worker: WorkerOptions | None = None,
        clock: Clock = time.monotonic,
    ) -> None:
        """No thread runs yet.

        Args:
            open_source: see ``open_source`` in ``idm_rt.virtual_camera.sources``.
            open_sink: opens the output; called by ``start``.
            open_enhancer: see ``idm_rt.worker.enhancer_opener``.
            options: None = defaults.
            controls: what the user wants at the start; None = defaults.
            worker: patience of the engine's worker; None = defaults.
            clock: monotonic seconds.
        """
        self.options = options or CameraOptions()
        self._controls = controls or CameraControls()
        self._open_sink, self._clock = open_sink, clock
        self._sink: SinkKeeper | None = None
        self._worker = PipelineWorker(open_enhancer, self._controls.live, worker, clock=clock)
        self._composer = Composer(self.options.size, self._worker.outbound, self.options.stale_after_s, clock)
        self._source = SourceKeeper(
            open_source,
            self._deliver,
            clock=clock,
            output_fps=self.options.fps,
            hang_after_s=self.options.hang_after_s,
            max_lost=self.options.max_lost,
        )
        self._stop, self._done = threading.Event(), threading.Event()
        self._output: OutputLoop | None = None
        self._prepared = False
        self._thread = threading.Thread(target=self._run, name="idm-rt output", daemon=True)
        self.failure: IdmError | None = None  # why the output ended by itself, if it was a fault

    @property
    def source(self) -> SourceKeeper:
        """The source's keeper."""
        return self._source

    @property
    def controls(self) -> CameraControls:
        """The present controls."""
        return self._controls

    @property
    def output_name(self) -> str:
        """What the pictures go to, for people."""
        assert self._sink is not None, "start it first"
        return self._sink.name

    @property
    def preview(self) -> LatestMailbox[RgbImage]:
        """The newest picture of the output, for a window."""
        assert self._output is not None, "start it first"
        return self._output.preview

    def set_controls(self, controls: CameraControls) -> None:
        """Change what the user wants; the next picture obeys. From any thread.

        Raises:
            ValueError: the model offers no such steps.
        """
        if controls.live != self._controls.live:
            self._worker.set_controls(controls.live)
        self._controls = controls

    def prepare(self) -> Self:
        """Start the source alone, so that one may see whether there is a picture before others do."""
        if not self._prepared:
            self._prepared = True
            self._source.start()
        return self

    def start(self) -> Self:
        """Open the output and the engine; from now on a picture goes out at every tick. Waits for neither.

        Raises:
            MediaError, ConfigError: the output cannot be opened.
        """
        self.prepare()
        self._sink = self._open_sink()
        self._output = OutputLoop(
            self._composer,
            self._sink,
            self.options.fps,
            self._clock,
            source_state=lambda: self._source.state,
            compare=lambda: self._controls.compare,
            max_ticks=self.options.max_ticks,
        )
        self._thread.start()
        self._worker.start()
        return self

    def wait(self, timeout_s: float) -> bool:
        """Wait until the camera has ended by itself (source ended, output failed, all written); True if so."""
        return self._done.wait(timeout_s)

    def status(self) -> CameraStatus:
        """A snapshot; from any thread."""
        assert self._output is not None, "start it first"
        return CameraStatus(
            self._controls, self._source.state, self._output.stats(), self._worker.stats(), self._worker.error
        )

    def close(self, timeout_s: float = _CLOSE_WITHIN_S) -> bool:
        """End everything, the output first, so that its file is finished or its device released in any case.

        Args:
            timeout_s: longest wait. A second call, with more patience, goes on waiting.

        Returns:
            False if a thread is still inside a call of an engine or a driver; see ``PipelineWorker.close``.

        Raises:
            MediaError: an output file could not be finished.
        """
        until_s = time.monotonic() + timeout_s
        self._stop.set()
        self._worker.stop()
        try:
            if self._thread.ident is not None:
                self._thread.join(0.85 * timeout_s)
            if self._thread.is_alive():
                log.warning("the output does not take the last picture; leaving it")
            elif self._sink is not None:
                self._sink.close()
        finally:
            ended = self._source.close(max(0.05, min(0.3, until_s - time.monotonic())))
            ended = self._worker.close(max(0.1, until_s - time.monotonic())) and ended
        return ended and not self._thread.is_alive()

    def __enter__(self) -> Self:
        try:
            return self.start()
        except BaseException:
            self.close()
            raise

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _deliver(self, image: RgbImage, captured_s: float) -> None:
        """A picture from the source, on its thread."""
        frame = Frame(fit(image, self.options.size), captured_s=captured_s)
        self._composer.offer_raw(frame)
        self._worker.submit(frame)

    def _each_tick(self, now_s: float) -> None:
        self._source.check(now_s)
        if self._source.state.status is SourceStatus.ENDED:
            self._stop.set()

    def _run(self) -> None:
        """The output's thread."""
        assert self._output is not None
        try:
            self._output.run(self._stop, self._each_tick)
        except OutputEnded as reason:
            log.info("%s", reason)
        except IdmError as error:
            self.failure = error
        except Exception as error:  # a bug: the program must learn of it, and not stand there without a picture
            log.debug("the output raised", exc_info=True)
            self.failure = MediaError(f"the output failed unexpectedly ({type(error).__name__}: {error})")
        finally:
            self._done.set()
