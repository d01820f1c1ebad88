"""Let spandrel be imported where torchvision cannot be.

torchvision's wheels hold C++ for one build of torch; beside another (a CPU build with a "+cpu" version, for one) the
import ends with "operator torchvision::nms does not exist". spandrel imports three functions of it at module level, for
two of its forty architectures, and none of them is part of a network's forward pass. So, only if the real torchvision
cannot be imported, and only while spandrel is, these names are there; whoever calls one gets an error.
"""

from __future__ import annotations

import importlib
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from types import ModuleType
from typing import Any, NoReturn

_ROOT = "torchvision"
# what spandrel 0.4 and spandrel_extra_arches 0.2 import when they are imported
_NAMES = {"torchvision.transforms.functional": ("InterpolationMode", "normalize", "rotate")}


@contextmanager
def importable_torchvision() -> Iterator[bool]:
    """Within the block ``import torchvision`` works; yields whether it is the real one."""
    try:
        importlib.import_module(_ROOT)
    except (ImportError, OSError, RuntimeError) as error:
        reason = " ".join(str(error).split())
    else:
        yield True
        return
    before = _take_modules()  # what an import that failed half-way has left
    sys.modules.update(_stand_in(reason))
    try:
        yield False
    finally:
        _take_modules()
        sys.modules.update(before)


def _take_modules() -> dict[str, ModuleType]:
    """Remove torchvision and all below it from the loaded modules."""
    names = [name for name in sys.modules if name == _ROOT or name.startswith(f"{_ROOT}.")]
    return {name: sys.modules.pop(name) for name in names}


def _stand_in(reason: str) -> dict[str, ModuleType]:
    modules: dict[str, ModuleType] = {}
    for full, names in _NAMES.items():
        parts = full.split(".")
        for depth in range(1, len(parts) + 1):
            path = ".".join(parts[:depth])
            module = modules.setdefault(path, ModuleType(path, "Stand-in; see idm_rt.peers.torchvision_stand_in."))
            module.__path__ = []  # a package: names below it are looked up in sys.modules
        for name in names:
            setattr(modules[full], name, _refuse(f"{full}.{name}", reason))
    return modules


def _refuse(name: str, reason: str) -> Any:
    def refused(*_: object, **__: object) -> NoReturn:
        raise RuntimeError(f"{name} was called, but torchvision cannot be imported here: {reason}")

    return refused
