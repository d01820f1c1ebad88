"""Finding faces and following them. Nothing here imports mediapipe before a finder is opened."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from idm_rt.tracking.opening import open_tracker
    from idm_rt.tracking.tracker import FaceTracker, TrackerOptions, TrackingResult

__all__ = ["FaceTracker", "TrackerOptions", "TrackingResult", "open_tracker"]


def __getattr__(name: str) -> object:
    """Load on first use: cv2 and numpy are not needed to print a help text."""
    if name == "open_tracker":
        from idm_rt.tracking.opening import open_tracker

        return open_tracker
    if name in __all__:
        from idm_rt.tracking import tracker

        return getattr(tracker, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
