"""Who emits each frame of a live stream, and when: deadlines, order, exactly once. No thread of its own."""

from __future__ import annotations

import logging
import threading
from collections.abc import Sequence
from dataclasses import dataclass, field, replace

from idm_rt.config import STEPS
from idm_rt.frame_interval import FrameInterval
from idm_rt.governor import Governor, Plan
from idm_rt.live_records import Cause, Job, LiveControls, LiveFrame, LiveRecords, LiveStats, Outcome
from idm_rt.mailbox import LatestMailbox, MailboxClosed
from idm_rt.timing import Clock, StageTimer, summarize_ms
from idm_rt.types import Frame

log = logging.getLogger(__name__)


@dataclass(slots=True)
class _State:
    """Everything that changes, under one lock."""

    controls: LiveControls
    offered: tuple[int, ...] = STEPS
    engine_open: bool = False
    current: Job | None = None  # in the engine
    waiting: Job | None = None  # the newest in the inbound slot; maybe settled
    next_number: int = 0
    last_emitted: int = -1
    records: LiveRecords = field(default_factory=LiveRecords)


class Delivery:
    """The books of one live stream.

    Three parties call it: the source (``submit``), the engine's thread (``begin``, ``finish``) and a watch
    (``watch``) that emits what the engine is late with. Each frame has a deadline; whoever settles it first emits it,
    the others find it settled. So a frame goes out in time even while the engine is inside a call that never returns.
    Frames go out in the order in which they came in; one that is ready after a newer one has gone out is given up.

    Thread-safe; no method waits for another party. ``inbound`` and ``outbound`` are the two slots.
    """

    def __init__(self, controls: LiveControls, governor: Governor, clock: Clock, deadline_frames: float) -> None:
        """``deadline_frames``: frame intervals after its arrival at which a frame goes out as it is."""
        self.inbound: LatestMailbox[Job] = LatestMailbox()
        self.outbound: LatestMailbox[LiveFrame] = LatestMailbox()
        self.governor = governor
        self.interval = FrameInterval()
        self.changed = threading.Condition()  # notified when the watch must look earlier than it planned
        self._clock, self._deadline_frames = clock, deadline_frames
        self._state = _State(controls)

    @property
    def controls(self) -> LiveControls:
        """The present controls."""
        return self._state.controls

    @property
    def current(self) -> Job | None:
        """The frame in the engine."""
        return self._state.current

    @property
    def engine_open(self) -> bool:
        """Whether an engine takes frames."""
        return self._state.engine_open

    def overdue(self) -> bool:
        """Whether the engine is late with its frame."""
        current = self._state.current
        return current is not None and self._clock() >= current.deadline_s

    def set_controls(self, controls: LiveControls) -> None:
        """Take over new controls; the next frame obeys them.

        Raises:
            ValueError: the model offers no such steps.
        """
        with self.changed:
            if controls.steps != self._state.controls.steps:
                self.governor.configure(controls.steps, self._state.offered)
            self._state.controls = controls

    def engine_opened(self, offered: Sequence[int]) -> None:
        """An engine is ready for frames.

        Args:
            offered: the numbers of steps that its model was trained for.

        Raises:
            ValueError: none of them is as small as the controls' steps.
        """
        with self.changed:
            if tuple(offered) != self._state.offered:
                self.governor.configure(self._state.controls.steps, offered)
            self._state.offered, self._state.engine_open = tuple(offered), True
            self._state.records.opened += 1
            self.changed.notify_all()

    def engine_lost(self) -> None:
        """No engine is open any more, and none will ever finish the current frame."""
        now = self._clock()
        with self.changed:
            state = self._state
            for job in (state.current, state.waiting):
                if job is not None:
                    self._emit(job, job.frame, Cause.OPENING, now)
            state.engine_open, state.current, state.waiting = False, None, None
            self.inbound.take()

    def submit(self, frame: Frame) -> None:
        """A new frame from the source. ``captured_s`` (on this clock) is set to now if it is missing."""
        now = self._clock()
        with self.changed:
            if self.inbound.closed:
                return  # after the end
            job = self._new_job(frame, now)
            cause = self._reason_to_pass(now)
            if cause is not None:
                self._discard(self.inbound.take())
                self._emit(job, job.frame, cause, now)
            if cause is None or (
                cause is Cause.GOVERNOR and self._state.current is None and self.governor.probe_due(now)
            ):
                self._hand_over(job)

    def _new_job(self, frame: Frame, now: float) -> Job:
        state = self._state
        if frame.captured_s is None:
            frame = replace(frame, captured_s=now)
        state.records.frames_in += 1
        self.interval.add(now)
        state.next_number += 1
        return Job(state.next_number - 1, frame, now, now + self._deadline_frames * self.interval.seconds)

    def _hand_over(self, job: Job) -> None:
        self._discard(self.inbound.put(job))
        self._state.waiting = job
        self.changed.notify_all()

    def _reason_to_pass(self, now: float) -> Cause | None:
        """Why a frame that comes now goes out at once, None if the engine shall have it."""
        state = self._state
        if not state.controls.enabled:
            return Cause.OFF
        if not state.engine_open:
            return Cause.OPENING
        if not self.governor.level.steps:
            return Cause.GOVERNOR
        if state.current is not None and now >= state.current.deadline_s:
            return Cause.BUSY
        return None

    def _discard(self, job: Job | None) -> None:
        """A frame left the inbound slot for a newer one; if it has not been emitted by now it is dropped."""
        if job is not None and not job.settled:
            job.settled = True
            self._state.records.dropped += 1

    def _emit(self, job: Job, frame: Frame, cause: Cause | None, now: float) -> None:
        """Send a frame out, unless that happened or a newer one was sent."""
        if job.settled:
            return
        job.settled = True
        state = self._state
        if job.number < state.last_emitted:
            state.records.superseded += 1
            return
        state.last_emitted = job.number
        age_s = max(0.0, now - (job.came_s if job.frame.captured_s is None else job.frame.captured_s))
        state.records.emitted(age_s, cause)
        try:
            self.outbound.put(LiveFrame(frame, job.frame, cause, age_s))
        except MailboxClosed:
            log.debug("a frame came after the end")

    def begin(self, job: Job) -> Plan | None:
        """The engine is free and took ``job`` from ``inbound``; None: there is nothing to do with it."""
        now = self._clock()
        with self.changed:
            if not self._is_wanted(job, now):
                return None
            job.began_s, self._state.current = now, job
            self.changed.notify_all()
            return self.governor.plan()

    def _is_wanted(self, job: Job, now: float) -> bool:
        if not self.governor.level.steps:
            self._emit(job, job.frame, Cause.GOVERNOR, now)
            return self.governor.probe_due(now)
        if self._is_hopeless(job, now):
            self._emit(job, job.frame, Cause.LATE, now)
        return not job.settled

    def _is_hopeless(self, job: Job, now: float) -> bool:
        """Whether it waited too long to be ready in time, though a frame that comes now would be.

        If not even that one would be it is worked on all the same: the governor learns from it, and steps down.
        """
        work_s = self.governor.expected_s()
        return work_s is not None and work_s <= job.deadline_s - job.came_s and now + work_s > job.deadline_s

    def finish(self, job: Job, plan: Plan, outcome: Outcome) -> None:
        """The engine is done with ``job``; what it made of it is emitted if there is still time."""
        now, is_new = self._clock(), False
        with self.changed:
            if self._state.current is not job:
                return  # abandoned meanwhile
            self._state.current = None
            if outcome.fault is not None:
                is_new = self._state.records.fault(outcome.fault)
                self._emit(job, job.frame, Cause.FAULT, now)
            else:
                self._state.records.work_ms.append(outcome.work_s * 1000.0)
                self._emit(job, outcome.frame, None, now)
                self.governor.observe(plan, outcome.work_s, outcome.network_s, self.interval.seconds, now)
        if is_new:  # not under the lock: a log may be slow
            log.warning("showing the original picture: %s", outcome.fault)

    def watch(self) -> float | None:
        """Emit the originals whose deadline has come.

        Returns:
            Seconds until the next deadline; None if no frame is under way.
        """
        now = self._clock()
        with self.changed:
            current = self._state.current
            if current is not None and now >= current.deadline_s:
                self._emit(current, current.frame, Cause.DEADLINE, now)
            waiting = self._state.waiting
            if waiting is not None and now >= waiting.deadline_s:
                self._emit(waiting, waiting.frame, Cause.BUSY if current is not None else Cause.LATE, now)
            pending = [job for job in (current, waiting) if job is not None and not job.settled]
            return min((max(0.0, job.deadline_s - now) for job in pending), default=None)

    def stats(self, engine: str, timer: StageTimer, threads: int, abandoned: int) -> LiveStats:
        """A snapshot; the four arguments are what the books do not know, see ``LiveStats``."""
        with self.changed:
            records, governor = self._state.records.copy(), self.governor
            counts = replace(governor.counts, frames=dict(governor.counts.frames))
            level, levels = governor.level.name, tuple(level.name for level in governor.levels)
            interval_ms, unread = self.interval.seconds * 1000.0, self.outbound.drops
        return LiveStats(
            frames_in=records.frames_in,
            frames_out=records.frames_out,
            bypassed=records.bypassed,
            dropped=records.dropped,
            superseded=records.superseded,
            unread=unread,
            age_ms=summarize_ms(list(records.ages_ms)),
            work_ms=summarize_ms(list(records.work_ms)),
            stages_ms=timer.summary(),
            interval_ms=round(interval_ms, 3),
            level=level,
            levels=levels,
            steps_down=counts.downs,
            steps_up=counts.ups,
            frames_by_level=counts.frames,
            faults=records.faults,
            engine=engine,
            opened=records.opened,
            threads=threads,
            abandoned=abandoned,
        )
