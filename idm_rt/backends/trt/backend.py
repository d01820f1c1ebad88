"""TensorRT and TensorRT-RTX as engines of idm_rt."""

from __future__ import annotations

import logging
import threading
from collections.abc import Iterable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from idm_rt.backends.base import Backend, DeviceSampler, check_batch, not_finite, one_line, open_failure, run_failure
from idm_rt.backends.device_clock import DeviceClock
from idm_rt.backends.nvidia import first_gpu
from idm_rt.backends.trt.building import ensure_plan
from idm_rt.backends.trt.cuda_api import CudaDevice, CudaError
from idm_rt.backends.trt.library import Library, load_library
from idm_rt.backends.trt.network import MAX_BATCH
from idm_rt.backends.trt.plan_key import PRECISION, PlanKey, plan_key
from idm_rt.backends.trt.plan_runner import PlanRefused, PlanRunner, RunFailed
from idm_rt.backends.trt.plan_store import PlanStore, write_atomic
from idm_rt.errors import EngineError
from idm_rt.model_manifest import ModelManifest

log = logging.getLogger(__name__)

_FAULTS = (CudaError, RunFailed)


class TensorRtBackend(Backend):
    """A plan on the GPU. Batches larger than the plan's are cut into several."""

    precision = PRECISION
    device = "cuda:0"

    def __init__(self, name: str, runner: PlanRunner, cuda: CudaDevice, size: int) -> None:
        """Take over an opened plan; ``open_model`` is the usual way. ``close`` closes runner and device."""
        self.name, self.size = name, size
        self._runner: PlanRunner | None = runner
        self._cuda = cuda
        self._eps: NDArray[np.float32] | None = None

    def denoise(self, x_t: Any, y: Any, t: float) -> Any:
        """See ``Backend.denoise``. y is a picture: the plan takes it in the 8 bits it was made of, so it is rounded."""
        check_batch(x_t, y, self.size)
        if self._runner is None:
            raise ValueError("the backend is closed")
        try:
            self._cuda.use_in_this_thread()
            if not isinstance(y, np.ndarray):
                return self._denoise_in_place(self._runner, x_t, y, t)
            crops = np.clip(np.rint((y + 1.0) * 127.5), 0, 255).astype(np.uint8).transpose(0, 2, 3, 1)
            x0 = np.empty(y.shape, np.float32)
            for part in _parts(len(y)):
                x0[part] = self._runner.denoise(x_t[part], crops[part], t)
        except _FAULTS as error:
            raise run_failure(self, error) from error
        return x0

    def _denoise_in_place(self, runner: PlanRunner, x_t: Any, y: Any, t: float) -> Any:
        """``x_t`` and ``y`` are torch tensors on the GPU; so is the result, fp16."""
        import torch

        _check_on_gpu(y)
        crops = ((y.float() + 1.0) * 127.5).round().clamp(0, 255).to(torch.uint8).permute(0, 2, 3, 1).contiguous()
        state = x_t.to(torch.float16).contiguous()
        x0 = torch.empty_like(state)
        _wait_for_torch(y)
        for part in _parts(len(y)):
            addresses = state[part].data_ptr(), crops[part].data_ptr(), x0[part].data_ptr()
            runner.denoise_in_place(*addresses, part.stop - part.start, t)
        return x0

    def on_device(self, steps: int) -> DeviceSampler | None:
        return self

    def device_clock(self) -> DeviceClock | None:
        if self._runner is None:
            return None
        self._runner.clock = self._runner.clock or DeviceClock(self._cuda.event, "copies both ways and all steps")
        return self._runner.clock

    def correction(self, crops: Any, eps: NDArray[np.float32], steps: int) -> Any:
        """See ``DeviceSampler.correction``."""
        if self._runner is None:
            raise ValueError("the backend is closed")
        try:
            self._cuda.use_in_this_thread()
            if eps is not self._eps:
                self._runner.set_noise(eps)
                self._eps = eps
            if isinstance(crops, np.ndarray):
                return self._correct_on_host(self._runner, crops, steps)
            return self._correct_in_place(self._runner, crops, steps)
        except _FAULTS as error:
            raise run_failure(self, error) from error

    def _correct_on_host(self, runner: PlanRunner, crops: NDArray[np.uint8], steps: int) -> NDArray[np.float32]:
        result = np.empty(crops.shape, np.float32)
        for part in _parts(len(crops)):
            correction, level = runner.correct(crops[part], steps)
            self._check(level)
            result[part] = correction
        return result

    def _correct_in_place(self, runner: PlanRunner, crops: Any, steps: int) -> Any:
        """``crops`` is a torch tensor on the GPU."""
        import torch

        _check_on_gpu(crops)
        crops = crops.contiguous()
        result = torch.empty(crops.shape, dtype=torch.float16, device=crops.device)
        _wait_for_torch(crops)
        for part in _parts(len(crops)):
            n = part.stop - part.start
            level = runner.correct_in_place(crops[part].data_ptr(), result[part].data_ptr(), n, steps)
            self._check(level)
        return result

    def _check(self, level: NDArray[np.float32]) -> None:
        if not np.isfinite(level).all():
            raise not_finite(self)

    def warm_up(self, batch_sizes: Iterable[int] = (1,)) -> None:
        """Capture the graph of one step for each batch size."""
        noise = self._eps if self._eps is not None else np.zeros((1, 3, self.size, self.size), np.float32)
        for n in batch_sizes:
            self.correction(np.zeros((n, self.size, self.size, 3), np.uint8), noise, 1)

    def jit_cache(self) -> bytes:
        """See ``PlanRunner.jit_cache``."""
        return self._runner.jit_cache() if self._runner is not None else b""

    def close(self) -> None:
        if self._runner is not None:
            self._runner.close()
            self._cuda.close()
            self._runner = None


def _parts(count: int) -> list[slice]:
    """Slices of at most ``MAX_BATCH``."""
    return [slice(start, min(start + MAX_BATCH, count)) for start in range(0, count, MAX_BATCH)]


def _check_on_gpu(tensor: Any) -> None:
    if tensor.device.type != "cuda":
        raise TypeError(f"a tensor must lie on the GPU (a numpy array need not), found {tensor.device}")


def _wait_for_torch(tensor: Any) -> None:
    """Our stream knows nothing of torch's: what torch has yet to write must be there before we read."""
    import torch

    torch.cuda.current_stream(tensor.device).synchronize()


def model_key(engine: str, manifest: ModelManifest) -> PlanKey:
    """The key of a model's plan here.

    Raises:
        EngineError: the library cannot be loaded, there is no GPU, or the model has no fp16 file.
    """
    library = load_library(engine)
    return plan_key(library.flavour, library.version, manifest, first_gpu())


def why_not_ready(engine: str, manifest: ModelManifest) -> str | None:
    """Why opening would have to build first, in words; None when the plan lies there.

    Raises:
        EngineError: see ``model_key``.
    """
    return PlanStore().fault(model_key(engine, manifest))


def open_engine(
    engine: str, manifest: ModelManifest, precision: str | None = None, cancelled: threading.Event | None = None
) -> TensorRtBackend:
    """Open a model, building its plan first when there is none for this GPU and version.

    Raises:
        EngineError: no GPU, no library, another precision, or the build failed.
        ModelError: the model's file is missing or corrupt.
    """
    if precision not in (None, PRECISION):
        raise EngineError(f"engine {engine} has no precision {precision!r}; choose {PRECISION}")
    library = load_library(engine)
    gpu = first_gpu()
    if gpu is None:
        raise EngineError(f"engine {engine} could not be opened: no NVIDIA GPU was found here; choose --engine auto")
    key, store = plan_key(library.flavour, library.version, manifest, gpu), PlanStore()
    model = manifest.verified_file("onnx_fp16")
    try:
        return open_plan(library, store, key, ensure_plan(store, key, model, cancelled=cancelled))
    except PlanRefused as refused:
        log.warning("the plan for %s is built again: it was refused: %s", engine, refused)
        store.discard(key)
    try:
        return open_plan(library, store, key, ensure_plan(store, key, model, cancelled=cancelled))
    except PlanRefused as refused:
        store.discard(key)
        raise open_failure(engine, EngineError(f"it refuses its own new plan on {gpu.name}: {refused}")) from refused


def open_plan(
    library: Library, store: PlanStore, key: PlanKey, plan: bytes, cuda: CudaDevice | None = None
) -> TensorRtBackend:
    """Put a plan on the GPU, run it once, and keep what the library compiled for that.

    Raises:
        PlanRefused: the library does not take it.
        EngineError: no GPU, or it cannot run.
    """
    cuda = cuda or CudaDevice()
    jit = store.jit_path(key)
    try:
        known = jit.read_bytes() if jit.is_file() else b""
        runner = PlanRunner(library, plan, key.size, cuda, known)
        backend = TensorRtBackend(library.engine, runner, cuda, key.size)
        backend.warm_up()
    except (CudaError, RunFailed) as error:
        cuda.close()
        raise open_failure(library.engine, EngineError(one_line(error))) from error
    except BaseException:
        cuda.close()
        raise
    _keep(jit, backend.jit_cache(), known)
    return backend


def _keep(path: Any, jit: bytes, known: bytes) -> None:
    """Write the run-time cache if it grew; without it the next start is only slower."""
    if not jit or jit == known:
        return
    try:
        write_atomic(path, jit)
    except OSError as error:
        log.warning("%s cannot be written (%s); the next start compiles again", path, error.strerror or error)


def open_tensorrt(manifest: ModelManifest, threads: int | None = None, precision: str | None = None) -> Backend:
    """Open a shipped model on TensorRT; ``threads`` is of no meaning. See ``open_engine``."""
    return open_engine("tensorrt", manifest, precision)


def open_tensorrt_rtx(manifest: ModelManifest, threads: int | None = None, precision: str | None = None) -> Backend:
    """Open a shipped model on TensorRT-RTX; ``threads`` is of no meaning. See ``open_engine``."""
    return open_engine("tensorrt-rtx", manifest, precision)
