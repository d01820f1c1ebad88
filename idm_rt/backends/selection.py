"""Which engine runs, and why. An engine that was asked for by name is never replaced by another."""

from __future__ import annotations

import importlib
import importlib.metadata
import importlib.util
import logging
from collections.abc import Callable
from dataclasses import dataclass
from types import ModuleType

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
    module: str  # file below idm_rt.backends with the function that opens a model
    distribution: str  # name of the package in its metadata
    precisions: tuple[str, ...]  # that it has, on some machine
    file: str = "onnx"  # kind of the model's file that it loads
    needs_gpu: bool = False  # of no use without an NVIDIA GPU
    auto_needs_gpu: bool = False  # ``auto`` takes it only with an NVIDIA GPU
    opener: str = "open_model"  # the function
    compiled: bool = False  # has to be built for this machine first; see idm_rt.backends.trt


# In the order in which ``auto`` tries them: fastest first.
_ENGINES = (
    _Engine(
        *("tensorrt", "tensorrt", "pip install 'idm-rt[tensorrt]'", "trt.backend", "tensorrt"),
        *(("fp16",), "onnx_fp16"),
        needs_gpu=True,
        opener="open_tensorrt",
        compiled=True,
    ),
    _Engine(
        *("tensorrt-rtx", "tensorrt_rtx", "pip install 'idm-rt[rtx]'", "trt.backend", "tensorrt-rtx-cu13"),
        *(("fp16",), "onnx_fp16"),
        needs_gpu=True,
        opener="open_tensorrt_rtx",
        compiled=True,
    ),
    _Engine(
        *("torch", "torch", "pip install 'idm-rt[train]'", "torch_backend", "torch"),
        *(("f32", "fp16"), "weights"),
        auto_needs_gpu=True,
    ),
    _Engine(
        *("openvino", "openvino", "pip install --force-reinstall idm-rt", "openvino_backend", "openvino"),
        ("f32", "bf16", "int8"),
    ),
    _Engine(
        *("onnxruntime", "onnxruntime", "pip install --force-reinstall idm-rt", "onnxruntime_backend", "onnxruntime"),
        ("f32",),
    ),
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

    if engine.needs_gpu and not gpu:
        library = "is installed" if installed else f"is not installed ({engine.install})"
        return status(False, f"no NVIDIA GPU was found here; the package {engine.package} {library}")
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
    engine: str,
    manifest: ModelManifest,
    threads: int | None = None,
    precision: str | None = None,
    require_gpu: bool = False,
) -> EngineChoice:
    """Open a model on an engine.

    Args:
        engine: one of ``idm_rt.config.ENGINES``.
        manifest: the model.
        threads: inference threads on the CPU; None = every CPU this process may use.
        precision: one of ``idm_rt.config.PRECISIONS`` that the engine has; None or "auto" = the engine's best on this
            machine, which says why in ``Backend.precision_reason``.
        require_gpu: an engine that would run on the CPU is not taken.

    Raises:
        EngineError: unknown engine; not available here; or it cannot be opened. For ``auto``: none can.
        ModelError: the model's file is missing or corrupt (another engine would not help).
        ValueError: threads < 1.
    """
    if threads is not None and threads < 1:
        raise ValueError(f"threads must be 1 or more, or None, found {threads}")
    if engine not in ENGINES:
        raise EngineError(f"unknown engine {engine!r}; choose one of {', '.join(ENGINES)}")
    precision = None if precision == "auto" else precision
    if engine == "auto":
        return _open_first(manifest, threads, precision, require_gpu)
    found = next(e for e in _ENGINES if e.name == engine)
    status = _probe(found, gpu=cuda_device_count() > 0)
    if not status.available:
        raise EngineError(f"engine {engine} is not available: {status.reason}; or choose --engine auto")
    _check_precision(found, precision)
    backend = _load(found)(manifest, threads, precision)
    if require_gpu and backend.device == "cpu":
        backend.close()
        raise EngineError(f"engine {engine} runs on the CPU here, and a GPU is required; choose --engine auto")
    return EngineChoice(backend, "asked for by name")


def _open_first(manifest: ModelManifest, threads: int | None, precision: str | None, require_gpu: bool) -> EngineChoice:
    """The first engine of the list that works here; every one before it is named with its reason."""
    passed_over: list[tuple[str, str]] = []
    to_build: _Engine | None = None
    for engine in _ENGINES:
        status = _probe(engine, gpu=cuda_device_count() > 0)
        try:
            _check_precision(engine, precision)
            if _must_be_built(engine, status, manifest):
                if to_build is not None:
                    raise _Unwanted(f"it has no plan yet; {to_build.name} is built first")
                to_build = engine
                raise _Unwanted(f"its plan is being built; {engine.name} takes over when that is done")
            backend = _try_open(engine, status, manifest, threads, precision)
            if require_gpu and backend.device == "cpu":
                backend.close()
                raise _Unwanted("it runs on the CPU, and a GPU is required")
        except EngineError as error:
            passed_over.append((engine.name, str(error)))
            quiet = not status.applicable or isinstance(error, _Unwanted)
            logger.log(logging.INFO if quiet else logging.WARNING, "not %s: %s", engine.name, error)
            continue
        where = f"{backend.precision} on {backend.device}"
        if to_build is None:
            return EngineChoice(backend, f"the fastest that works here ({where})", tuple(passed_over))
        reason = f"until the plan of {to_build.name} is built ({where})"
        return EngineChoice(_swap_later(backend, to_build, manifest, precision), reason, tuple(passed_over))
    if to_build is not None:  # nothing to run meanwhile: wait for it
        return EngineChoice(_load(to_build)(manifest, threads, precision), "the only one that works here")
    lead = "no engine works on a GPU here" if require_gpu else "no engine works here"
    raise EngineError(f"{lead}; " + "; ".join(f"{name}: {reason}" for name, reason in passed_over))


class _Unwanted(EngineError):
    """Passed over though nothing is wrong with it."""


def _check_precision(engine: _Engine, precision: str | None) -> None:
    if precision is not None and precision not in engine.precisions:
        offered = ", ".join(engine.precisions)
        raise _Unwanted(f"engine {engine.name} has no precision {precision!r}; choose {offered}, or another engine")


def _must_be_built(engine: _Engine, status: EngineStatus, manifest: ModelManifest) -> bool:
    """Whether an engine that could be used here has no plan of this model yet.

    Raises:
        EngineError: it cannot be used after all.
    """
    if not (engine.compiled and status.available and manifest.has(engine.file)):
        return False
    fault: str | None = _module(engine).why_not_ready(engine.name, manifest)
    return fault is not None


def _swap_later(backend: Backend, engine: _Engine, manifest: ModelManifest, precision: str | None) -> Backend:
    """``backend`` for now; a thread builds the plan of ``engine`` and takes it over."""
    from idm_rt.backends.swapping import SwappingBackend

    open_engine = _module(engine).open_engine
    return SwappingBackend(backend, lambda cancelled: open_engine(engine.name, manifest, precision, cancelled))


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
    open_model: OpenModel = getattr(_module(engine), engine.opener)
    return open_model


def _module(engine: _Engine) -> ModuleType:
    try:
        return importlib.import_module(f"idm_rt.backends.{engine.module}")
    except (ImportError, OSError) as error:  # installed, but its native libraries do not load
        raise open_failure(engine.name, error) from error
