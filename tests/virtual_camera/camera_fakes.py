"""A virtual camera's output in simulated time, and small fakes of sources and sinks."""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
from clocks import TurnedClock
from live_fakes import FPS30, LiveSimulation

from idm_rt.enhancer import EnhancedFrame
from idm_rt.errors import MediaError
from idm_rt.live_records import LiveFrame
from idm_rt.mailbox import LatestMailbox
from idm_rt.timing import StageTimer
from idm_rt.types import Frame
from idm_rt.virtual_camera.composer import Composer
from idm_rt.virtual_camera.output import OutputLoop
from idm_rt.virtual_camera.records import SourceState, SourceStatus
from idm_rt.virtual_camera.sinks import SinkKeeper

SIZE = (4, 4)


@dataclass
class Write:
    """One picture that reached the sink."""

    at_s: float
    image: np.ndarray
    tick: int
    count: int


class RecordingSink:
    """Keeps what it is given; each picture takes ``work_s()`` of simulated time; may be told to fail."""

    name = "the recording sink"

    def __init__(self, clock: TurnedClock, work_s: Callable[[], float] = lambda: 0.0) -> None:
        self.clock, self.work_s = clock, work_s
        self.writes: list[Write] = []
        self.fail = False
        self.closed = 0

    def write(self, image: np.ndarray, tick: int, count: int) -> None:
        if self.fail:
            raise MediaError("the recording sink was unplugged")
        self.writes.append(Write(self.clock(), image, tick, count))
        self.clock.advance(self.work_s())

    def close(self) -> None:
        self.closed += 1


class OutputBench:
    """An output loop fed by hand: frames are put, time is turned, ticks are served as the thread would."""

    def __init__(self, fps: float = 30.0, work_s: Callable[[], float] = lambda: 0.0, **more) -> None:
        self.clock = TurnedClock()
        self.outbound: LatestMailbox[LiveFrame] = LatestMailbox()
        self.composer = Composer(SIZE, self.outbound, 0.5, self.clock)
        self.sink = RecordingSink(self.clock, work_s)
        self.state = SourceState(status=SourceStatus.LIVE)
        self.compare = False
        self.keeper = SinkKeeper(lambda: self.sink, self.clock, reopens=True)
        self.loop = OutputLoop(
            self.composer, self.keeper, fps, self.clock,
            source_state=lambda: self.state, compare=lambda: self.compare, **more,
        )  # fmt: skip

    def put(self, value: int, *, bypassed=None, captured_s: float | None = None) -> None:
        """A frame whose enhanced picture has this value, and whose original is 0."""
        captured_s = self.clock() if captured_s is None else captured_s
        original = Frame(np.zeros((4, 4, 3), np.uint8), captured_s=captured_s)
        made = original if bypassed else replace(original, image=np.full((4, 4, 3), value, np.uint8))
        self.outbound.put(LiveFrame(made, original, bypassed))

    def run(self, seconds: float) -> list[Write]:
        """Serve ticks for a while, waiting in between as the thread does; returns what was written meanwhile."""
        first, end_s = len(self.sink.writes), self.clock() + seconds
        while self.loop.due_s < end_s - 1e-9:
            self.clock.advance_to(self.loop.due_s)
            self.loop.step()
        self.clock.advance_to(end_s)
        return self.sink.writes[first:]


class CameraSimulation(LiveSimulation):
    """Source, engine, watch and output in simulated time: the whole camera on one thread."""

    def __init__(self, *, alive: Callable[[float], bool] = lambda now_s: True, fps: float = 30.0, **script) -> None:
        super().__init__(**script)
        self.alive = alive
        self.sink = RecordingSink(self.clock)
        self.composer = Composer(SIZE, self.delivery.outbound, 0.5, self.clock)
        keeper = SinkKeeper(lambda: self.sink, self.clock, reopens=True)
        self.output = OutputLoop(
            self.composer, keeper, fps, self.clock, source_state=self.source_state, compare=lambda: False
        )
        self.clock.call_at(self.output.due_s, self._tick)

    def source_state(self) -> SourceState:
        return SourceState(status=SourceStatus.LIVE if self.alive(self.clock()) else SourceStatus.LOST)

    def _tick(self) -> None:
        self.output.step()
        self.clock.call_at(self.output.due_s, self._tick)

    def _arrive(self) -> None:
        if self.alive(self.clock()):
            frame = Frame(np.zeros((4, 4, 3), np.uint8), captured_s=self.clock())
            self.composer.offer_raw(frame)
            self.delivery.submit(frame)
        self._due_s += self.interval_s
        self.clock.call_at(self._due_s + self.jitter(), self._arrive)
        self._watch()

    def _drain(self) -> None:
        """The output takes the frames, at its ticks."""


class WhiteEnhancer:
    """Whitens frames on a real thread; may be told to raise or to hang until it is let go."""

    offered_steps = (1, 2, 4)

    def __init__(self) -> None:
        self.timer, self.last = StageTimer(), EnhancedFrame(restored=1)
        self.error: Exception | None = None
        self.hang = threading.Event()
        self.let_go = threading.Event()
        self.closed = threading.Event()

    def process_frame(self, frame, timestamp_ms, *, steps=None, strength=None, carry=False) -> Frame:
        if self.hang.is_set():
            self.let_go.wait()
        if self.error is not None:
            raise self.error
        return replace(frame, image=np.full_like(frame.image, 255))

    def close(self) -> None:
        self.closed.set()


class FakeCamera:
    """A source on a real thread: gives numbered grey pictures until the cable is pulled; may hang in ``read``."""

    interval_s = FPS30

    def __init__(self, stop: threading.Event, cable: FakeCable) -> None:
        self._stop, self._cable = stop, cable
        self.closed = False

    def read(self) -> np.ndarray | None:
        if self._stop.wait(self.interval_s):
            return None
        if self._cable.hang.is_set():
            self._cable.let_go.wait()
        if self._cable.pulled.is_set():
            raise MediaError("the fake camera was pulled out")
        return np.full((4, 4, 3), 100, np.uint8)

    def close(self) -> None:
        self.closed = True


class FakeCable:
    """Opens ``FakeCamera``s, unless it is pulled."""

    def __init__(self) -> None:
        self.pulled, self.hang, self.let_go = threading.Event(), threading.Event(), threading.Event()
        self.made: list[FakeCamera] = []
        self.attempts = 0

    def __call__(self, stop: threading.Event) -> FakeCamera:
        self.attempts += 1
        if self.pulled.is_set():
            raise MediaError("there is no fake camera")
        self.made.append(FakeCamera(stop, self))
        return self.made[-1]
