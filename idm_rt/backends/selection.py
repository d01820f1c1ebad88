"""Which engine runs, and why. An engine that was asked for by name is never replaced by another."""

from __future__ import annotations

import importlib
import importlib.metadata
import importlib.util
import logging
from collections.abc import Callable
from dataclasses import dataclass

import idm_rt
from idm_rt.backends.base import Backend, EngineChoice, EngineStatus, open_failure
from idm_rt.backends.nvidia import cuda_device_count
from idm_rt.config import ENGINES
from idm_rt.errors import EngineError
from idm_rt.model_manifest import ModelManifest

logger = logging.getLogger(__name__)

OpenModel = Callable[[ModelManifest, int | None, str | None], Backend]


@dataclass(frozen=True, slots=True)
class _Engine:
    """What selection must know of an engine before it is loaded."""

    name: str  # as in idm_rt.config.ENGINES
    package: str  # module whose presence means "installed"
    install: str  # what to type to get it
    module: str | None  # file with ``open_model``; None: this version of idm_rt cannot run the engine
    distribution: str  # name of the package in its metadata
    file: str = "onnx"  # kind of the model's file that it loads
    needs_gpu: bool = False  # of no use without an NVIDIA GPU
    auto_needs_gpu: bool = False  # ``auto`` takes it only with an NVIDIA GPU


# In the order in which ``auto`` tries them: fastest first.
_ENGINES = (
    _Engine("tensorrt", "tensorrt", "pip install 'idm-rt[tensorrt]'", None, "tensorrt", needs_gpu=True),
    _Engine("tensorrt-rtx", "tensorrt_rtx", "pip install 'idm-rt[rtx]'", None, "tensorrt-rtx-cu13", needs_gpu=True),
    _Engine("torch", "torch", "pip install 'idm-rt[train]'", "torch_backend", "torch", "weights", auto_needs_gpu=True),
    _Engine("openvino", "openvino", "pip install --force-reinstall idm-rt", "openvino_backend", "openvino"),
    _Engine("onnxruntime", "onnxruntime", "pip install --force-reinstall idm-rt", "onnxruntime_backend", "onnxruntime"),
)


def probe_engines() -> list[EngineStatus]:
    """The state of every engine, in the order in which ``auto`` tries them; imports none of their packages."""
    return [_probe(engine, gpu=cuda_device_count() > 0) for engine in _ENGINES]


def _probe(engine: _Engine, gpu: bool) -> EngineStatus:
    """State of one engine as if it had been asked for by name."""
    installed = importlib.util.find_spec(engine.package) is not None
    version = _version(engine.distribution) if installed else None
    applicable = gpu or not (engine.needs_gpu or engine.auto_needs_gpu)

    def status(available: bool, reason: str) -> EngineStatus:
        return EngineStatus(engine.name, available, reason, version, applicable)

    if engine.module is None:
        library = "is installed" if installed else f"is not installed ({engine.install})"
        hardware = "" if gpu else ", and no NVIDIA GPU was found here"
        reason = f"idm_rt {idm_rt.__version__} cannot run it yet; the package {engine.package} {library}{hardware}"
        return status(False, reason)
    if not installed:
        return status(False, f"the package {engine.package} is not installed; {engine.install}")
    if not applicable:
        return status(True, "no NVIDIA GPU was found here; runs on the CPU as the reference, too slow for calls")
    return status(True, f"{engine.package} {version or 'of unknown version'} is installed")


def _version(distribution: str) -> str | None:
    try:
        return importlib.metadata.version(distribution)
    except importlib.metadata.PackageNotFoundError:
        return None


def open_backend(
    engine: str, manifest: ModelManifest, threads: int | None = None, precision: str | None = None
) -> EngineChoice:
    """Open a model on an engine.

    Args:
        engine: one of ``idm_rt.config.ENGINES``.
        manifest: the model.
        threads: inference threads on the CPU; None = every CPU this process may use.
        precision: "f32", "bf16" or "fp16" where the engine has it; None = the engine's best on this machine.

    Raises:
        EngineError: unknown engine; not available here; or it cannot be opened. For ``auto``: none can.
        ModelError: the model's file is missing or corrupt (another engine would not help).
        ValueError: threads < 1.
    """
    if threads is not None and threads < 1:
        raise ValueError(f"threads must be 1 or more, or None, found {threads}")
    if engine not in ENGINES:
        raise EngineError(f"unknown engine {engine!r}; choose one of {', '.join(ENGINES)}")
    if engine == "auto":
        return _open_first(manifest, threads, precision)
    found = next(e for e in _ENGINES if e.name == engine)
    status = _probe(found, gpu=cuda_device_count() > 0)
    if not status.available:
        raise EngineError(f"engine {engine} is not available: {status.reason}; or choose --engine auto")
    return EngineChoice(_load(found)(manifest, threads, precision), "asked for by name")


def _open_first(manifest: ModelManifest, threads: int | None, precision: str | None) -> EngineChoice:
    """The first engine of the list that works here; every one before it is named with its reason."""
    passed_over: list[tuple[str, str]] = []
    for engine in _ENGINES:
        status = _probe(engine, gpu=cuda_device_count() > 0)
        try:
            backend = _try_open(engine, status, manifest, threads, precision)
        except EngineError as error:
            passed_over.append((engine.name, str(error)))
            logger.log(logging.WARNING if status.applicable else logging.INFO, "not %s: %s", engine.name, error)
            continue
        where = f"{backend.precision} on {backend.device}"
        return EngineChoice(backend, f"the fastest that works here ({where})", tuple(passed_over))
    raise EngineError("no engine works here; " + "; ".join(f"{name}: {reason}" for name, reason in passed_over))


def _try_open(
    engine: _Engine, status: EngineStatus, manifest: ModelManifest, threads: int | None, precision: str | None
) -> Backend:
    """Open one engine for ``auto``; EngineError with the reason when it is not to be taken."""
    if not (status.available and status.applicable):
        raise EngineError(status.reason)
    if not manifest.has(engine.file):
        raise EngineError(f"model {manifest.name!r} comes without the {engine.file} file that it needs")
    backend = _load(engine)(manifest, threads, precision)
    if engine.auto_needs_gpu and backend.device == "cpu":
        backend.close()
        raise EngineError(f"{engine.package} {status.version} was built without CUDA or finds no usable GPU")
    return backend


def _load(engine: _Engine) -> OpenModel:
    """Import an engine's file, and with it its heavy package."""
    try:
        module = importlib.import_module(f"idm_rt.backends.{engine.module}")
    except (ImportError, OSError) as error:  # installed, but its native libraries do not load
        raise open_failure(engine.name, error) from error
    open_model: OpenModel = module.open_model
    return open_model
