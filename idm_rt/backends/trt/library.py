"""The two TensorRT packages behind one record: which is imported, whether its version fits, where they differ."""

from __future__ import annotations

import importlib
import logging
from dataclasses import dataclass
from typing import Any

from idm_rt.backends.base import one_line
from idm_rt.errors import EngineError

log = logging.getLogger(__name__)

ENGINE_NAMES = ("tensorrt", "tensorrt-rtx")


@dataclass(frozen=True, slots=True)
class Flavour:
    """What is known of a package before it is imported."""

    engine: str  # as in idm_rt.config.ENGINES
    module: str  # what to import
    install: str  # what to type to get it
    versions: tuple[tuple[int, ...], tuple[int, ...]]  # the lowest that works, the lowest that is not known to
    portable: bool  # its plans run on every GPU it supports: compiled to machine code at run time


FLAVOURS = {
    "tensorrt": Flavour("tensorrt", "tensorrt", "pip install 'idm-rt[tensorrt]'", ((10, 12), (12,)), portable=False),
    "tensorrt-rtx": Flavour("tensorrt-rtx", "tensorrt_rtx", "pip install 'idm-rt[rtx]'", ((1, 2), (2,)), portable=True),
}


@dataclass(frozen=True, slots=True)
class Library:
    """An imported TensorRT package."""

    flavour: Flavour
    api: Any  # the module; both packages have the same names in it
    version: str

    @property
    def engine(self) -> str:
        """Name of the engine, as in ``idm_rt.config.ENGINES``."""
        return self.flavour.engine

    def has_builder_flag(self, name: str) -> bool:
        """Whether this version knows a flag of the builder."""
        return hasattr(self.api.BuilderFlag, name)


def load_library(engine: str) -> Library:
    """Import a TensorRT package.

    Raises:
        EngineError: it is not installed, its native libraries do not load, or its version does not fit.
        KeyError: not one of ``ENGINE_NAMES``.
    """
    flavour = FLAVOURS[engine]
    try:
        api = importlib.import_module(flavour.module)
        version = str(api.__version__)
    except ModuleNotFoundError as error:
        raise EngineError(f"the package {error.name} is not installed; {flavour.install}") from error
    except (ImportError, OSError, AttributeError) as error:
        # The wheel named tensorrt is a shell that fetches its libraries from elsewhere: it can be there without them.
        raise EngineError(
            f"the package {flavour.module} is installed but its libraries do not load ({one_line(error)}); "
            f"pip install --force-reinstall its package and look for errors: {flavour.install}"
        ) from error
    check_version(flavour, version)
    return Library(flavour, api, version)


def check_version(flavour: Flavour, version: str) -> None:
    """Raise EngineError unless the version is one that works."""
    found = tuple(int(part) for part in version.split(".")[:3] if part.isdigit())
    lowest, end = flavour.versions
    if not lowest <= found < end:
        wanted = f"{'.'.join(map(str, lowest))} or newer, below {'.'.join(map(str, end))}"
        raise EngineError(f"{flavour.module} {version} is installed, expected {wanted}; {flavour.install}")


def make_logger(library: Library, errors: list[str]) -> Any:
    """A TensorRT logger that writes to ``logging`` and keeps the errors, oldest first, in ``errors``."""
    api = library.api
    levels = {
        api.Logger.Severity.INTERNAL_ERROR: logging.ERROR,
        api.Logger.Severity.ERROR: logging.ERROR,
        api.Logger.Severity.WARNING: logging.INFO,
    }

    def write(logger: Any, severity: Any, message: str) -> None:
        level = levels.get(severity, logging.DEBUG)
        if level == logging.ERROR:
            errors.append(" ".join(message.split()))
            level = logging.DEBUG  # whoever fails reports it; twice would be noise
        log.log(level, "%s: %s", library.engine, message)

    def start(logger: Any) -> None:
        api.ILogger.__init__(logger)  # the binding does not accept super()

    return type("LibraryLogger", (api.ILogger,), {"__init__": start, "log": write})()
