"""The worker's threads in real time: hung, raising and absent engines, shutdown, and a stream with a slow network."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Callable
from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest
from live_fakes import CAMERA, FPS30, RESTORED, camera_frame
from test_pipeline import ScriptedTracker, Sharpener, make_track

from idm_rt.config import EnhancerConfig
from idm_rt.enhancer import EnhancedFrame, Enhancer
from idm_rt.errors import EngineError, ModelError
from idm_rt.mailbox import MailboxClosed
from idm_rt.timing import StageTimer
from idm_rt.types import Frame
from idm_rt.worker import Cause, LiveControls, LiveFrame, PipelineWorker, WorkerOptions

PATIENCE_S = 20.0  # for what happens within milliseconds on a quiet machine
SOON_S = 1.0 + 2.0  # what must happen within a second, and room for a busy machine
QUICK = WorkerOptions(hang_after_s=0.4, open_within_s=0.4, replace_after_s=0.2, retry_after_s=0.05, max_abandoned=2)


class ThreadEnhancer:
    """Whitens frames; may be told to hang in a call until it is let go, or to raise."""

    def __init__(self) -> None:
        self.timer, self.last = StageTimer(), EnhancedFrame()
        self.offered_steps = (1,)
        self.hang = False
        self.error: Exception | None = None
        self.let_go = threading.Event()
        self.closed = threading.Event()
        self.used_by: set[str] = set()

    def process_frame(self, frame, timestamp_ms, *, steps=None, strength=None, carry=False) -> Frame:
        self.used_by.add(threading.current_thread().name)
        if self.error is not None:
            raise self.error
        if self.hang:
            self.let_go.wait()
        return replace(frame, image=RESTORED)

    def close(self) -> None:
        self.used_by.add(threading.current_thread().name)
        self.closed.set()


class Opener:
    """Opens one ``ThreadEnhancer`` after the other and keeps them; ``prepare`` may spoil each."""

    def __init__(self, prepare: Callable[[int, ThreadEnhancer], None] = lambda number, enhancer: None) -> None:
        self.made: list[ThreadEnhancer] = []
        self._prepare = prepare

    def __call__(self) -> ThreadEnhancer:
        enhancer = ThreadEnhancer()
        self.made.append(enhancer)
        self._prepare(len(self.made), enhancer)
        return enhancer


class Stream:
    """Feeds a worker at 30 frames per second from one thread, and reads what comes out on another."""

    def __init__(self, worker: PipelineWorker, image: np.ndarray = CAMERA) -> None:
        self.worker, self.image = worker, image
        self.out: list[tuple[float, LiveFrame]] = []
        self._end = threading.Event()
        self._threads = [threading.Thread(target=part, daemon=True) for part in (self._feed, self._read)]

    def __enter__(self) -> Stream:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._end.set()
        self.worker.stop()
        for thread in self._threads:
            thread.join(PATIENCE_S)

    def _feed(self) -> None:
        index = 0
        while not self._end.wait(FPS30):
            self.worker.submit(replace(camera_frame(index), image=self.image))
            index += 1

    def _read(self) -> None:
        while True:
            try:
                live = self.worker.outbound.get()
            except MailboxClosed:
                return
            self.out.append((time.monotonic(), live))

    def wait_for(self, holds: Callable[[LiveFrame], bool], timeout_s: float = PATIENCE_S) -> float:
        """Seconds until a frame for which this holds comes out, from now on."""
        start_s, seen = time.monotonic(), len(self.out)
        while time.monotonic() - start_s < timeout_s:
            if any(holds(live) for _, live in self.out[seen:]):
                return time.monotonic() - start_s
            time.sleep(0.005)
        raise AssertionError(f"nothing of the kind within {timeout_s} s: {self.worker.stats()}")


def is_restored(live: LiveFrame) -> bool:
    return live.bypassed is None and live.frame.image is RESTORED


def wait_until(holds: Callable[[], bool], timeout_s: float = PATIENCE_S) -> None:
    end_s = time.monotonic() + timeout_s
    while not holds():
        assert time.monotonic() < end_s, "nothing of the kind in time"
        time.sleep(0.005)


def engine_threads() -> int:
    return sum(thread.name.startswith("idm-rt") for thread in threading.enumerate())


@pytest.fixture(autouse=True)
def no_thread_is_left():
    before = engine_threads()
    yield
    wait_until(lambda: engine_threads() <= before)


def test_frames_are_restored_on_one_thread_and_everything_is_freed():
    opener = Opener()
    with PipelineWorker(opener, options=QUICK) as worker, Stream(worker) as stream:
        assert worker.wait_ready(PATIENCE_S)
        stream.wait_for(is_restored)
        assert worker.stats().engine == "running" and worker.error is None
    assert worker.close() and worker.stats().engine == "closed"
    (enhancer,) = opener.made
    assert enhancer.closed.is_set() and len(enhancer.used_by) == 1
    assert not worker.wait_ready(0.01)


def test_while_the_enhancer_opens_the_original_is_shown():
    gate = threading.Event()
    with PipelineWorker(Opener(lambda *_: gate.wait(PATIENCE_S) and None)) as worker, Stream(worker) as stream:
        stream.wait_for(lambda live: live.bypassed is Cause.OPENING)
        assert worker.stats().engine == "opening" and not worker.wait_ready(0.01)
        gate.set()
        stream.wait_for(is_restored)


def test_a_hung_engine_never_stops_the_picture_and_is_replaced():
    opener = Opener()
    with PipelineWorker(opener, options=QUICK) as worker, Stream(worker) as stream:
        stream.wait_for(is_restored)
        stuck = opener.made[0]
        stuck.hang = True
        # the frame inside the stuck call passes its deadline, or the one after it overtakes it
        assert stream.wait_for(lambda live: live.bypassed in (Cause.DEADLINE, Cause.BUSY)) < SOON_S
        hung = len(stream.out)
        stream.wait_for(is_restored)
        assert len(opener.made) == 2 and worker.stats().threads == 2 and worker.stats().abandoned == 1
        during = [live for _, live in stream.out[hung:]]
        assert sum(live.bypassed in (Cause.BUSY, Cause.OPENING) for live in during) > 3
        restored = len(stream.out)
        stuck.let_go.set()  # it returns after all: what it made is not shown, its enhancer is freed
        assert stuck.closed.wait(PATIENCE_S)
        wait_until(lambda: worker.stats().abandoned == 0)
        stream.wait_for(is_restored)
        pts = [live.frame.pts for _, live in stream.out]
        assert pts == sorted(set(pts)) and restored < len(pts)


def test_only_so_many_threads_are_lost_and_one_that_returns_brings_the_picture_back():
    hang = [True]
    opener = Opener(lambda number, enhancer: setattr(enhancer, "hang", hang[0]))
    with PipelineWorker(opener, options=QUICK) as worker, Stream(worker) as stream:
        wait_until(lambda: worker.stats().abandoned == 2)
        assert worker.stats().engine == "stuck"
        time.sleep(3 * QUICK.hang_after_s)
        assert len(opener.made) == 2  # no third one
        stream.wait_for(lambda live: live.bypassed is Cause.OPENING)
        hang[0] = False
        opener.made[0].let_go.set()
        stream.wait_for(is_restored)
        opener.made[1].let_go.set()


def test_an_opening_that_hangs_is_given_up_too():
    gate = threading.Event()
    opener = Opener(lambda number, _: gate.wait() and None if number == 1 else None)
    with PipelineWorker(opener, options=QUICK) as worker, Stream(worker) as stream:
        stream.wait_for(is_restored)
        assert len(opener.made) == 2 and worker.stats().abandoned == 1
        gate.set()
        assert opener.made[0].closed.wait(PATIENCE_S)
        stream.wait_for(is_restored)


def test_an_enhancer_that_keeps_raising_is_opened_anew(caplog):
    def spoil(number: int, enhancer: ThreadEnhancer) -> None:
        enhancer.error = RuntimeError("device lost") if number == 1 else None

    opener = Opener(spoil)
    with PipelineWorker(opener, options=QUICK) as worker, Stream(worker) as stream:
        stream.wait_for(lambda live: live.bypassed is Cause.FAULT)
        stream.wait_for(is_restored)
        stats = worker.stats()
        assert opener.made[0].closed.is_set() and stats.opened == 2 and stats.threads == 1
        assert set(stats.faults) == {"RuntimeError: device lost"} and stats.faults["RuntimeError: device lost"] > 1
    assert sum("device lost" in record.getMessage() for record in caplog.records) == 1


def test_a_model_that_cannot_be_opened_is_said_and_tried_again(caplog):
    def refuse(number: int, _: ThreadEnhancer) -> None:
        if number < 4:
            raise ModelError("model x is missing")

    opener = Opener(refuse)
    with PipelineWorker(opener, options=replace(QUICK, retry_after_s=0.2)) as worker, Stream(worker) as stream:
        wait_until(lambda: worker.error == "ModelError: model x is missing")
        stream.wait_for(lambda live: live.bypassed is Cause.OPENING)
        stream.wait_for(is_restored)
        assert worker.error is None and len(opener.made) == 4
    assert sum("model x is missing" in record.getMessage() for record in caplog.records) == 1


def test_steps_that_the_model_lacks_are_said():
    opener = Opener(lambda number, enhancer: setattr(enhancer, "offered_steps", (2, 4)))
    with PipelineWorker(opener, LiveControls(steps=1), QUICK) as worker:
        wait_until(lambda: worker.error is not None)
        assert "steps is 1" in str(worker.error)
        worker.set_controls(LiveControls(steps=2))
        assert worker.wait_ready(PATIENCE_S)
    assert all(enhancer.closed.is_set() for enhancer in opener.made)


def test_switching_off_and_on_takes_effect_at_once():
    with PipelineWorker(Opener(), options=QUICK) as worker, Stream(worker) as stream:
        stream.wait_for(is_restored)
        worker.set_controls(LiveControls(enabled=False))
        stream.wait_for(lambda live: live.bypassed is Cause.OFF)
        assert worker.controls == LiveControls(enabled=False)
        worker.set_controls(LiveControls())
        stream.wait_for(is_restored)


def test_closing_is_bounded_while_the_engine_hangs():
    opener = Opener(lambda number, enhancer: setattr(enhancer, "hang", True))
    worker = PipelineWorker(opener).start()
    assert worker.wait_ready(PATIENCE_S)
    worker.submit(camera_frame(0))
    wait_until(lambda: worker.stats().engine == "stuck")
    start_s = time.monotonic()
    assert worker.close(timeout_s=0.2) is False
    assert time.monotonic() - start_s < 0.2 + SOON_S
    worker.submit(camera_frame(1))  # ignored
    with pytest.raises(MailboxClosed):
        while True:
            worker.outbound.get(0.0)
    opener.made[0].let_go.set()
    assert opener.made[0].closed.wait(PATIENCE_S)
    assert worker.close(PATIENCE_S) is True


def test_a_worker_that_was_never_started_closes():
    assert PipelineWorker(Opener()).close()


def test_the_end_wakes_a_reader_on_an_event_loop():
    async def scene() -> None:
        worker = PipelineWorker(Opener()).start()
        reader = asyncio.create_task(worker.outbound.get_async())
        await asyncio.sleep(0.05)
        worker.stop()
        with pytest.raises(MailboxClosed):
            await asyncio.wait_for(reader, PATIENCE_S)
        assert await asyncio.to_thread(worker.close, PATIENCE_S)

    asyncio.run(scene())


# -- the real Enhancer, with a tracker and a network that are small fakes -------------------------------------------

PICTURE = np.random.default_rng(1).integers(40, 210, (240, 320, 3), dtype=np.uint8)


class SleepyRestorer(Sharpener):
    """A network that takes its time, and counts."""

    def __init__(self, seconds: float) -> None:
        super().__init__()
        self.seconds, self.runs = seconds, 0
        self.manifest = type("Manifest", (), {"steps": (1, 2, 4)})()

    def correction(self, crops, steps=1):
        self.runs += 1
        time.sleep(self.seconds * steps)
        return super().correction(crops, steps)


def real_enhancer(restorer: SleepyRestorer, tracker: ScriptedTracker) -> Callable[[], Enhancer]:
    return lambda: Enhancer(
        EnhancerConfig(),
        timer=StageTimer(capacity=100),
        make_tracker=lambda _: tracker,
        make_restorer=lambda _: restorer,
    )


async def call(worker: PipelineWorker, seconds: float) -> tuple[list[tuple[float, LiveFrame]], float]:
    """A call on one event loop: a source, a viewer, and a heartbeat. Returns what came and the loop's longest pause."""
    out: list[tuple[float, LiveFrame]] = []
    beats: list[float] = []

    async def view() -> None:
        while True:
            out.append((time.monotonic(), await worker.outbound.get_async()))

    async def beat() -> None:
        while True:
            beats.append(time.monotonic())
            await asyncio.sleep(0.005)

    tasks = [asyncio.create_task(view()), asyncio.create_task(beat())]
    start_s = time.monotonic()
    for index in range(int(seconds / FPS30)):
        await asyncio.sleep(max(0.0, start_s + index * FPS30 - time.monotonic()))
        worker.submit(replace(camera_frame(index), image=PICTURE))
    await asyncio.sleep(3 * FPS30)
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
    return out, max(b - a for a, b in pairwise(beats))


@pytest.mark.slow
@pytest.mark.parametrize("network_s", [0.001, 0.300])
def test_three_seconds_of_a_call_in_real_time(network_s):
    """A fast network restores the picture; one of nine frame times ends in bypass. Neither holds up the event loop,
    nor the picture: also while the first slow calls run."""
    restorer = SleepyRestorer(network_s)
    worker = PipelineWorker(real_enhancer(restorer, ScriptedTracker([make_track()])))
    with worker:
        assert worker.wait_ready(PATIENCE_S)
        out, pause_s = asyncio.run(call(worker, 3.0))
        stats = worker.stats()
    assert stats.frames_in == 90 and len(out) + stats.unread == stats.frames_out
    pts = [live.frame.pts for _, live in out]
    assert pts == sorted(set(pts)) and len(out) > 60
    assert stats.age_ms["p95_ms"] < 1000 * (2 * FPS30 + 0.030)  # 30 ms for a busy machine
    assert pause_s < 0.25
    restored = [live for _, live in out if live.bypassed is None]
    if network_s < FPS30:
        if stats.work_ms["p50_ms"] > 800 * FPS30:
            pytest.skip(f"too busy a machine: the stages around the network take {stats.work_ms['p50_ms']:.0f} ms")
        assert restored and any((live.frame.image != PICTURE).any() for live in restored)
        assert stats.stages_ms["restore"]["count"] == restorer.runs
    else:
        assert not restored and stats.steps_down > 0 and restorer.runs < 10
        assert all(live.frame is live.original for _, live in out)


@pytest.mark.parametrize("stage", ["tracker", "restorer"])
def test_a_stage_that_dies_in_a_call_is_bypassed_and_comes_back(stage):
    restorer, tracker = SleepyRestorer(0.0), ScriptedTracker([make_track()])
    broken = restorer if stage == "restorer" else tracker
    with PipelineWorker(real_enhancer(restorer, tracker)) as worker, Stream(worker, PICTURE) as stream:
        changed = lambda live: live.bypassed is None and (live.frame.image != live.original.image).any()  # noqa: E731
        stream.wait_for(changed)
        broken.error = EngineError("the engine died")
        assert stream.wait_for(lambda live: live.bypassed is Cause.FAULT) < SOON_S
        died = len(stream.out)
        time.sleep(0.3)
        assert len(stream.out) > died + 2  # the picture goes on
        broken.error = None
        assert stream.wait_for(changed) < 10.0
        assert set(worker.stats().faults) == {"EngineError: the engine died"}


@pytest.mark.parametrize(
    "values", [{"deadline_frames": 0.0}, {"hang_after_s": 0.0}, {"retry_after_s": -1.0}, {"max_abandoned": -1}]
)
def test_options_that_cannot_work_are_refused(values):
    with pytest.raises(ValueError, match="expected"):
        WorkerOptions(**values)
