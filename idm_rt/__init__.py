"""Real-time face restoration for video calls. Importing this package imports no heavy library."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

if TYPE_CHECKING:
    from idm_rt.config import EnhancerConfig
    from idm_rt.enhancer import Enhancer
    from idm_rt.restorer import Restorer, open_restorer

_LAZY = {
    "Enhancer": "idm_rt.enhancer",
    "EnhancerConfig": "idm_rt.config",
    "Restorer": "idm_rt.restorer",
    "open_restorer": "idm_rt.restorer",
}

__all__ = ["Enhancer", "EnhancerConfig", "Restorer", "__version__", "open_restorer"]


def __getattr__(name: str) -> Any:
    if name not in _LAZY:
        raise AttributeError(f"module 'idm_rt' has no attribute {name!r}")
    from importlib import import_module

    return getattr(import_module(_LAZY[name]), name)


def __dir__() -> list[str]:
    return sorted(__all__)
