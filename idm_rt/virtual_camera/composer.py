"""Which picture goes out at a tick: the enhanced one, the original, or a placeholder. No thread, no waiting."""

from __future__ import annotations

import threading
from dataclasses import dataclass

from idm_rt.live_records import LiveFrame
from idm_rt.mailbox import LatestMailbox
from idm_rt.timing import Clock
from idm_rt.types import Frame, RgbImage
from idm_rt.virtual_camera.pictures import compared, placeholder
from idm_rt.virtual_camera.records import Shown, SourceState, SourceStatus

# Others see the placeholder: it says what they need to know, and no name of a device or of an error.
_TEXTS = {
    SourceStatus.OPENING: ("Starting the camera", "one moment please"),
    SourceStatus.LIVE: ("No picture from the camera", "waiting for the next one"),
    SourceStatus.LOST: ("The camera is not connected", "trying again"),
    SourceStatus.ENDED: ("The end", "the source has ended"),
    SourceStatus.CLOSED: ("The camera is off", ""),
}
_SLOW_FRAMES = 2.5  # intervals: a source of two pictures a second is not stale between them


@dataclass(frozen=True, slots=True)
class Composed:
    """A picture for the sink."""

    image: RgbImage  # (H, W, 3) in the output's size; not to be changed
    shown: Shown
    new_from_s: float | None = None  # when it was captured, if it is shown for the first time


class Composer:
    """Keeps the newest pictures and chooses among them.

    Normally the worker's outbound slot has the newest frame, enhanced or not. Should that slot run dry while the
    source goes on (a fault that the worker itself does not survive), the source's own frames are shown.
    """

    def __init__(
        self, size: tuple[int, int], outbound: LatestMailbox[LiveFrame], stale_after_s: float, clock: Clock
    ) -> None:
        """``size``: (width, height) px of the output; frames must have it already."""
        self._size, self._outbound, self._stale_after_s, self._clock = size, outbound, stale_after_s, clock
        self._lock = threading.Lock()
        self._raw: Frame | None = None
        self._live: LiveFrame | None = None
        self._shown_s = float("-inf")  # capture time of the newest frame shown
        self._compared: tuple[LiveFrame, RgbImage] | None = None

    def offer_raw(self, frame: Frame) -> None:
        """The source's newest frame, with ``captured_s``; from the source's thread."""
        with self._lock:
            self._raw = frame

    def compose(self, source: SourceState, compare: bool) -> Composed:
        """The picture for now."""
        live = self._outbound.take()
        if live is not None:
            self._live = live
        oldest_s = self._clock() - max(self._stale_after_s, _SLOW_FRAMES * source.interval_s)
        with self._lock:
            raw = self._raw
        if self._live is not None and _captured_s(self._live.original) >= oldest_s:
            return self._from_live(self._live, compare)
        if raw is not None and _captured_s(raw) >= oldest_s:
            return Composed(raw.image, Shown.ORIGINAL, self._first_time(_captured_s(raw)))
        return Composed(placeholder(self._size, *_TEXTS[source.status]), Shown.PLACEHOLDER)

    def _from_live(self, live: LiveFrame, compare: bool) -> Composed:
        shown = Shown.ORIGINAL if live.bypassed is not None else Shown.ENHANCED
        image = self._compare(live) if compare else live.frame.image
        return Composed(image, shown, self._first_time(_captured_s(live.original)))

    def _compare(self, live: LiveFrame) -> RgbImage:
        if self._compared is None or self._compared[0] is not live:
            self._compared = live, compared(live.original.image, live.frame.image)
        return self._compared[1]

    def _first_time(self, captured_s: float) -> float | None:
        if captured_s <= self._shown_s:
            return None
        self._shown_s = captured_s
        return captured_s


def _captured_s(frame: Frame) -> float:
    return float("-inf") if frame.captured_s is None else frame.captured_s
