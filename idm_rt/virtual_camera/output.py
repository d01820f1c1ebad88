"""Sends one picture per tick to the sink, whatever the source and the engine do."""

from __future__ import annotations

import threading
from collections import Counter, deque
from collections.abc import Callable

from idm_rt.mailbox import LatestMailbox, MailboxClosed
from idm_rt.timing import Clock, summarize_ms
from idm_rt.types import RgbImage
from idm_rt.virtual_camera.composer import Composed, Composer
from idm_rt.virtual_camera.metronome import Metronome
from idm_rt.virtual_camera.records import OutputStats, SourceState
from idm_rt.virtual_camera.sinks import SinkKeeper

_SAMPLES = 1000
_RATE_SAMPLES = 90  # three seconds at 30 pictures a second


class OutputLoop:
    """One picture per tick: composed, written, counted. ``run`` is the loop of the output's thread.

    Nothing queues up: a tick that could not be served in time is given up, and the next one shows the newest picture.
    """

    def __init__(
        self,
        composer: Composer,
        sink: SinkKeeper,
        fps: float,
        clock: Clock,
        *,
        source_state: Callable[[], SourceState],
        compare: Callable[[], bool],
        max_ticks: int | None = None,
    ) -> None:
        """``compare``: whether to show before and after. ``max_ticks``: end after so many ticks; None = go on."""
        self._composer, self._sink, self._clock = composer, sink, clock
        self._source_state, self._compare, self._max_ticks = source_state, compare, max_ticks
        self.preview: LatestMailbox[RgbImage] = LatestMailbox()  # the newest picture, for a window
        self._metronome = Metronome(fps, clock())
        self._lock = threading.Lock()
        self._written = 0
        self._shown: Counter[str] = Counter()
        self._delays_ms: deque[float] = deque(maxlen=_SAMPLES)
        self._times_s: deque[float] = deque(maxlen=_RATE_SAMPLES)

    @property
    def due_s(self) -> float:
        """When the next picture is due."""
        return self._metronome.due_s

    @property
    def finished(self) -> bool:
        """All pictures that were asked for are written."""
        return self._max_ticks is not None and self._metronome.tick >= self._max_ticks

    def run(self, stop: threading.Event, each_tick: Callable[[float], None]) -> None:
        """Serve ticks until ``stop`` is set or everything is written; ``each_tick`` is told the time.

        Raises:
            MediaError: the sink failed for good.
            OutputEnded: nobody takes pictures any more.
        """
        while not stop.is_set() and not self.finished:
            wait_s = self.due_s - self._clock()
            if wait_s > 0 and stop.wait(wait_s):
                return
            each_tick(self._clock())
            self.step()

    def step(self) -> bool:
        """Serve what is due now; False if nothing is."""
        first, count = self._metronome.serve(self._clock())
        if self._max_ticks is not None:
            count = min(count, self._max_ticks - first)
        if count < 1:
            return False
        composed = self._composer.compose(self._source_state(), self._compare())
        if self._sink.write(composed.image, first, count):
            self._count(composed)
        self._show(composed.image)
        return True

    def stats(self) -> OutputStats:
        """A snapshot; from any thread."""
        with self._lock:
            delays, times = list(self._delays_ms), list(self._times_s)
            written, shown = self._written, dict(self._shown)
        metronome = self._metronome
        span_s = times[-1] - times[0] if len(times) > 1 else 0.0
        return OutputStats(
            ticks=metronome.tick,
            written=written,
            missed=metronome.missed,
            shown=shown,
            sink_losses=self._sink.losses,
            sink_error=self._sink.error,
            delay_ms=summarize_ms(delays),
            fps=round((len(times) - 1) / span_s, 2) if span_s > 0 else 0.0,
        )

    def _count(self, composed: Composed) -> None:
        now_s = self._clock()
        with self._lock:
            self._written += 1
            self._shown[composed.shown.value] += 1
            self._times_s.append(now_s)
            if composed.new_from_s is not None:
                self._delays_ms.append((now_s - composed.new_from_s) * 1000.0)

    def _show(self, image: RgbImage) -> None:
        try:
            self.preview.put(image)
        except MailboxClosed:  # the window was closed
            return
