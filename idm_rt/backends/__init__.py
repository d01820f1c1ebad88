"""Inference engines behind one small protocol. Importing this package loads none of them."""

from __future__ import annotations

from idm_rt.backends.base import Backend, EngineChoice, EngineStatus
from idm_rt.backends.selection import open_backend, probe_engines

__all__ = ["Backend", "EngineChoice", "EngineStatus", "open_backend", "probe_engines"]
