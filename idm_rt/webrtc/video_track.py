"""A video track that shows another one with its faces restored."""

from __future__ import annotations

import asyncio
import atexit
import logging
import statistics
import time
import weakref
from collections import deque
from collections.abc import Callable

from aiortc.mediastreams import MediaStreamError, MediaStreamTrack
from av.video.frame import VideoFrame

from idm_rt.config import EnhancerConfig
from idm_rt.mailbox import MailboxClosed
from idm_rt.timing import Clock
from idm_rt.webrtc.arrivals import stamp, stamp_of
from idm_rt.webrtc.conversion import StreamEnhancer, StreamFrame
from idm_rt.worker import (
    LiveControls,
    LiveEnhancer,
    LiveFrame,
    LiveStats,
    PipelineWorker,
    WorkerOptions,
    enhancer_opener,
)

log = logging.getLogger(__name__)

EnhancerSource = EnhancerConfig | Callable[[], LiveEnhancer] | None
_RECENT = 30  # frames behind ``delay_s``: a second of video
_workers: weakref.WeakSet[PipelineWorker] = weakref.WeakSet()  # started; see ``_end_workers``


def enhance_track(
    track: MediaStreamTrack,
    enhancer: EnhancerSource = None,
    *,
    controls: LiveControls | None = None,
    options: WorkerOptions | None = None,
) -> EnhancedVideoTrack:
    """The same video with its faces restored: the one line that an aiortc application adds.

    See ``EnhancedVideoTrack`` for the arguments.
    """
    return EnhancedVideoTrack(track, enhancer, controls=controls, options=options)


class EnhancedVideoTrack(MediaStreamTrack):
    """Shows ``track`` with its faces restored.

    Frames keep their pts and time_base. Each is emitted within two frame intervals: restored if the engine was in time,
    else as it came, the very same object. The engine runs on threads of its own (see ``PipelineWorker``), the event
    loop only passes references. Whatever fails, the original picture is shown.

    Reading starts with the first ``recv`` (or ``start``) and goes on at the source's pace whether or not anybody reads
    on, so a slow reader sees the newest frame and never an old one. The track ends when its source ends. It owns its
    source: stopping it stops the source; subscribe to a ``MediaRelay`` to share one.
    """

    kind = "video"

    def __init__(
        self,
        track: MediaStreamTrack,
        enhancer: EnhancerSource = None,
        *,
        controls: LiveControls | None = None,
        options: WorkerOptions | None = None,
        clock: Clock = time.monotonic,
    ) -> None:
        """Opens nothing yet: the models are opened on the engine thread once reading starts.

        Args:
            track: a video track of decoded frames, such as a remote peer's.
            enhancer: how faces are restored: options (None = the defaults), or a function that opens an enhancer.
            controls: what the user wants now; None = as the options say.
            options: when to lose patience with the engine.
            clock: monotonic seconds.

        Raises:
            ValueError: not a video track.
        """
        super().__init__()
        if track.kind != "video":
            raise ValueError(f"expected a video track, found a track of kind {track.kind!r}")
        config = enhancer if isinstance(enhancer, EnhancerConfig) else EnhancerConfig()
        self._opener = enhancer if callable(enhancer) else enhancer_opener(config)
        self._source, self._clock = track, clock
        self._controls = controls or LiveControls(steps=config.steps, strength=config.strength)
        self._split = 0.0
        self._stream_enhancer: StreamEnhancer | None = None
        self._delays_s: deque[float] = deque(maxlen=_RECENT)
        self._pump: asyncio.Task[None] | None = None
        self.worker = PipelineWorker(self._open, self._controls, options, clock=clock)

    @property
    def controls(self) -> LiveControls:
        """What the user wants at present."""
        return self.worker.controls

    def set_controls(self, controls: LiveControls) -> None:
        """Change what the user wants; the next frame obeys.

        Raises:
            ValueError: the model offers no such steps.
        """
        self.worker.set_controls(controls)

    @property
    def split(self) -> float:
        """Part of the width, 0..1 from the left, that shows the original for comparison."""
        return self._split

    @split.setter
    def split(self, value: float) -> None:
        if not 0.0 <= value <= 1.0:
            raise ValueError(f"split is {value!r}, expected 0..1")
        self._split = value
        if self._stream_enhancer is not None:
            self._stream_enhancer.split = value

    @property
    def delay_s(self) -> float:
        """Median time from a frame's arrival (see ``FrameStamp``) to its leaving here, over a second; 0 at first."""
        return statistics.median(self._delays_s) if self._delays_s else 0.0

    def stats(self) -> LiveStats:
        """Counts and times so far."""
        return self.worker.stats()

    def start(self) -> None:
        """Start reading the source now rather than with the first ``recv``. On the event loop; twice is fine."""
        if self._pump is None and self.readyState == "live":
            self.worker.start()
            _workers.add(self.worker)
            self._pump = asyncio.ensure_future(self._read_source())

    async def recv(self) -> VideoFrame:
        """The next frame.

        Raises:
            MediaStreamError: the track or its source has ended.
        """
        if self.readyState != "live":
            raise MediaStreamError
        self.start()
        try:
            live = await self.worker.outbound.get_async()
        except MailboxClosed:
            self.stop()
            raise MediaStreamError from None
        video = _video_of(live)
        if (known := stamp_of(video)) is not None:
            self._delays_s.append(self._clock() - known.arrived_s)
        return video

    def stop(self) -> None:
        """End this track and its source; the worker's threads end by themselves. Twice is fine."""
        super().stop()
        self.worker.stop()
        if self._pump is not None:
            self._pump.cancel()
        self._source.stop()

    async def _read_source(self) -> None:
        try:
            while True:
                frame, now_s = await self._source.recv(), self._clock()
                if not isinstance(frame, VideoFrame):
                    raise TypeError(f"expected decoded video frames, found {type(frame).__name__}")
                stamp(frame, now_s)
                self.worker.submit(StreamFrame(frame, now_s))
        except MediaStreamError:
            log.debug("the source has ended")
        except Exception:  # a broken source ends this track as a closed one does
            log.exception("the source failed")
        finally:
            self.worker.stop()

    def _open(self) -> LiveEnhancer:
        made = StreamEnhancer(self._opener())
        made.split = self._split
        self._stream_enhancer = made
        return made


def _video_of(live: LiveFrame) -> VideoFrame:
    if not isinstance(live.frame, StreamFrame):
        raise TypeError(f"expected a StreamFrame, found {type(live.frame).__name__}")
    return live.frame.video


@atexit.register
def _end_workers() -> None:
    """Let engine calls end before the interpreter does: a thread ended inside native code aborts the process."""
    workers = list(_workers)
    for worker in workers:
        worker.stop()
    until_s = time.monotonic() + 2.0
    for worker in workers:
        worker.close(max(0.0, until_s - time.monotonic()))
