"""A relay that restores the faces of WebRTC streams: a page for oneself, WHIP to publish, WHEP to watch.

Needs the extra ``webrtc`` (aiohttp, aiortc, prometheus-client). ``idm-rt relay`` runs it.
"""

from __future__ import annotations

from idm_rt.relay.app import build_app
from idm_rt.relay.options import Limits, RelayOptions, Timeouts
from idm_rt.relay.serve import serve

__all__ = ["Limits", "RelayOptions", "Timeouts", "build_app", "serve"]
