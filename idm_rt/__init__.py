"""Real-time face restoration for video calls. Importing this package imports no heavy library."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

if TYPE_CHECKING:
    from idm_rt.config import EnhancerConfig
    from idm_rt.enhancer import Enhancer
    from idm_rt.restorer import Restorer, open_restorer
    from idm_rt.webrtc.video_track import EnhancedVideoTrack, enhance_track

_LAZY = {
    "EnhancedVideoTrack": "idm_rt.webrtc.video_track",
    "Enhancer": "idm_rt.enhancer",
    "EnhancerConfig": "idm_rt.config",
    "Restorer": "idm_rt.restorer",
    "enhance_track": "idm_rt.webrtc.video_track",
    "open_restorer": "idm_rt.restorer",
}

__all__ = [
    "EnhancedVideoTrack",
    "Enhancer",
    "EnhancerConfig",
    "Restorer",
    "__version__",
    "enhance_track",
    "open_restorer",
]


def __getattr__(name: str) -> Any:
    if name not in _LAZY:
        raise AttributeError(f"module 'idm_rt' has no attribute {name!r}")
    from importlib import import_module

    return getattr(import_module(_LAZY[name]), name)


def __dir__() -> list[str]:
    return sorted(__all__)
