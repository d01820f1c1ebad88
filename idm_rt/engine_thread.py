"""The thread on which a live stream's enhancer is opened, run, replaced when it keeps failing, and closed."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Protocol

from idm_rt.config import EnhancerConfig
from idm_rt.delivery import Delivery
from idm_rt.governor import GovernorOptions, Plan
from idm_rt.live_records import Job, Outcome
from idm_rt.mailbox import MailboxClosed
from idm_rt.timing import Clock, StageTimer
from idm_rt.types import Frame

if TYPE_CHECKING:
    from idm_rt.enhancer import EnhancedFrame

log = logging.getLogger(__name__)

_LOOK_EVERY_S = 0.25  # how often an idle thread looks whether it is to end
_TIMER_SAMPLES = 1000


class LiveEnhancer(Protocol):
    """What a live stream needs of an enhancer; see ``idm_rt.enhancer.Enhancer``. Used by one thread."""

    @property
    def timer(self) -> StageTimer:
        """Times per stage."""
        ...

    @property
    def last(self) -> EnhancedFrame:
        """The outcome of the newest frame."""
        ...

    @property
    def offered_steps(self) -> tuple[int, ...]:
        """Numbers of steps that the model was trained for."""
        ...

    def process_frame(
        self,
        frame: Frame,
        timestamp_ms: float,
        *,
        steps: int | None = None,
        strength: float | None = None,
        carry: bool = False,
    ) -> Frame:
        """One frame; see ``Enhancer.process_frame``."""
        ...

    def close(self) -> None:
        """Free everything."""
        ...


@dataclass(frozen=True, slots=True)
class WorkerOptions:
    """When a live stream's worker loses patience. Times in seconds."""

    deadline_frames: float = 2.0  # frame intervals after its arrival at which a frame goes out as it is
    hang_after_s: float = 4.0  # a call this long is taken for lost; an enhancer that reopens itself needs less
    open_within_s: float = 60.0  # the same for opening an enhancer: a first start may compile an engine
    replace_after_s: float = 5.0  # an enhancer that has failed in every frame for this long is opened anew
    retry_after_s: float = 2.0  # pause after an attempt to open one failed
    max_abandoned: int = 2  # threads that may be lost in engine calls at a time; then bypass until one returns
    governor: GovernorOptions = field(default_factory=GovernorOptions)

    def __post_init__(self) -> None:
        if not self.deadline_frames > 0 or self.max_abandoned < 0:
            found = f"{self.deadline_frames}, {self.max_abandoned}"
            raise ValueError(f"expected deadline_frames > 0 and max_abandoned >= 0, found {found}")
        if not min(self.hang_after_s, self.open_within_s, self.replace_after_s, self.retry_after_s) > 0:
            raise ValueError("expected positive times")


def enhancer_opener(config: EnhancerConfig) -> Callable[[], LiveEnhancer]:
    """The function that ``PipelineWorker`` calls, on its own thread, to open an enhancer and warm it up.

    A live stream is always smoothed over time: ``temporal`` is taken as True.
    """

    def open_enhancer() -> LiveEnhancer:
        from idm_rt.enhancer import Enhancer

        enhancer = Enhancer(replace(config, temporal=True), timer=StageTimer(capacity=_TIMER_SAMPLES))
        enhancer.warm_up()
        return enhancer

    return open_enhancer


def timestamp_ms_of(frame: Frame) -> float:
    """When a frame is shown: its pts if it has one, else the time of its capture. Milliseconds."""
    if frame.pts is not None and frame.time_base is not None:
        return float(frame.pts * frame.time_base) * 1000.0
    return (frame.captured_s or 0.0) * 1000.0


def serve(delivery: Delivery, enhancer: LiveEnhancer, job: Job, clock: Clock) -> Outcome | None:
    """Work on one frame; None if there was nothing to do with it."""
    plan = delivery.begin(job)
    if plan is None:
        return None
    outcome = enhance(enhancer, job.frame, plan, delivery.controls.strength, clock)
    delivery.finish(job, plan, outcome)
    return outcome


def enhance(enhancer: LiveEnhancer, frame: Frame, plan: Plan, strength: float, clock: Clock) -> Outcome:
    """What the enhancer makes of a frame, and at what cost. An error becomes an outcome."""
    start_s = clock()
    try:
        made = enhancer.process_frame(
            frame, timestamp_ms_of(frame), steps=plan.steps, strength=strength, carry=plan.carry
        )
    except Exception as error:  # an enhancer should not raise; the call goes on with the original all the same
        log.debug("the enhancer raised", exc_info=True)
        return Outcome(frame, fault=f"{type(error).__name__}: {error}")
    last = enhancer.last
    network_s = enhancer.timer.last_ms("restore") / 1000.0 if last.restored else 0.0
    return Outcome(made, clock() - start_s, network_s, last.bypassed)


class EngineThread:
    """Opens an enhancer and works on the frames of ``delivery.inbound`` until it is retired.

    Whether it is retired is decided under the lock ``delivery.changed``; from then on nothing it does counts.
    """

    def __init__(
        self,
        delivery: Delivery,
        open_enhancer: Callable[[], LiveEnhancer],
        options: WorkerOptions,
        clock: Clock,
        number: int,
    ) -> None:
        self.retired = threading.Event()
        self.opening_since_s: float | None = None  # set while inside ``open_enhancer``
        self.error: str | None = None  # why the last attempt to open failed
        self.timer = StageTimer()  # of the enhancer, once there is one
        self._delivery, self._open_enhancer = delivery, open_enhancer
        self._options, self._clock = options, clock
        self.thread = threading.Thread(target=self._run, name=f"idm-rt engine {number}", daemon=True)

    def _run(self) -> None:
        while not self.retired.is_set():
            enhancer = self._open()
            if enhancer is None:
                self.retired.wait(self._options.retry_after_s)
                continue
            try:
                welcome = self._announce(enhancer)
                if welcome:
                    self._serve(enhancer)
            finally:
                _close(enhancer)
            if not welcome:
                self.retired.wait(self._options.retry_after_s)

    def _open(self) -> LiveEnhancer | None:
        self.opening_since_s = self._clock()
        try:
            enhancer = self._open_enhancer()
        except Exception as error:  # a missing model must not end the call: it is shown as it is, and tried again
            self._note(error)
            return None
        finally:
            self.opening_since_s = None
        return enhancer

    def _note(self, error: Exception) -> None:
        message = f"{type(error).__name__}: {error}"
        if message != self.error:
            log.warning("the enhancer cannot be opened, showing the original picture: %s", message)
        self.error = message

    def _announce(self, enhancer: LiveEnhancer) -> bool:
        """Tell that frames are welcome; False if nobody waits for this thread any more."""
        with self._delivery.changed:
            if self.retired.is_set():
                return False
            try:
                self._delivery.engine_opened(enhancer.offered_steps)
            except ValueError as error:  # the user's steps are fewer than any the model offers
                self._note(error)
                return False
            self.error, self.timer = None, enhancer.timer
            return True

    def _serve(self, enhancer: LiveEnhancer) -> None:
        faulty_since_s: float | None = None
        while not self.retired.is_set():
            try:
                job = self._delivery.inbound.get(_LOOK_EVERY_S)
            except TimeoutError:
                continue
            except MailboxClosed:
                return
            outcome = serve(self._delivery, enhancer, job, self._clock)
            if outcome is None:
                continue
            if outcome.fault is None:
                faulty_since_s = None
                continue
            now = self._clock()
            faulty_since_s = now if faulty_since_s is None else faulty_since_s
            if now - faulty_since_s >= self._options.replace_after_s:
                self._give_up()
                return

    def _give_up(self) -> None:
        log.warning("the enhancer has failed for %.0f s: opening it anew", self._options.replace_after_s)
        with self._delivery.changed:
            if not self.retired.is_set():
                self._delivery.engine_lost()


def _close(enhancer: LiveEnhancer) -> None:
    try:
        enhancer.close()
    except Exception:  # it is broken already; the next one is opened all the same
        log.warning("the enhancer could not be closed", exc_info=True)
