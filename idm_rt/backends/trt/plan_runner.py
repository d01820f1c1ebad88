"""One plan opened on the GPU: buffers bound once, one stream, a captured CUDA graph per batch size and steps.

Written against the documented API of TensorRT 10.12 to 11 and TensorRT-RTX 1.7 and tried on a stand-in for both
(``tests/backends/fake_tensorrt.py``); it has not been run on a GPU yet.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from idm_rt.backends.device_clock import DeviceClock
from idm_rt.backends.trt.cuda_api import CudaDevice, CudaError
from idm_rt.backends.trt.library import Library, make_logger
from idm_rt.backends.trt.network import MAX_BATCH, profile_of
from idm_rt.diffusion import bridge_weights, time_grid

log = logging.getLogger(__name__)

_KEPT_STATE = (1.0, 0.0, 0.0)  # weights with which the given state is x_t itself


class PlanRefused(Exception):
    """The library does not take the plan: another version, another GPU, or damaged."""


class RunFailed(RuntimeError):
    """The library could not run a plan it has taken."""


@dataclass(frozen=True, slots=True)
class _Buffers:
    """Addresses on the GPU and arrays in pinned host memory, all for ``MAX_BATCH`` faces."""

    crops: int  # (N, S, S, 3) uint8
    zeros: int  # (N, 3, S, S) fp16; the state of a first step. Never an older x0: 0 * inf would be nan
    states: tuple[int, int]  # (N, 3, S, S) fp16 each; x0 of one step, state of the next, in turns
    eps: int  # (1, 3, S, S) fp16
    correction: int  # (N, S, S, 3) fp16
    level: int  # (N,) f32
    host_crops: NDArray[np.uint8]
    host_correction: NDArray[np.float16]
    host_level: NDArray[np.float32]
    host_state: NDArray[np.float16]  # in and out of a single step


def _allocate(cuda: CudaDevice, size: int) -> _Buffers:
    n, pixels = MAX_BATCH, 3 * size * size
    return _Buffers(
        crops=cuda.allocate(n * pixels),
        zeros=cuda.allocate(2 * n * pixels),
        states=(cuda.allocate(2 * n * pixels), cuda.allocate(2 * n * pixels)),
        eps=cuda.allocate(2 * pixels),
        correction=cuda.allocate(2 * n * pixels),
        level=cuda.allocate(4 * n),
        host_crops=cuda.pinned((n, size, size, 3), np.uint8),
        host_correction=cuda.pinned((n, size, size, 3), np.float16),
        host_level=cuda.pinned((n,), np.float32),
        host_state=cuda.pinned((n, 3, size, size), np.float16),
    )


class PlanRunner:
    """Runs batches of 1 to ``MAX_BATCH`` faces. One thread at a time; CUDA must be current in it."""

    def __init__(self, library: Library, plan: bytes, size: int, cuda: CudaDevice, jit: bytes = b"") -> None:
        """Open a plan.

        Args:
            library: the one that built the plan.
            plan: see ``building.ensure_plan``.
            size: S, side of the crops in px.
            cuda: is closed by the caller, after the runner.
            jit: of ``jit_cache``; one that does not fit is ignored.

        Raises:
            PlanRefused: the library does not take the plan.
            CudaError: not enough memory.
        """
        self._library, self._size, self._cuda = library, size, cuda
        self._errors: list[str] = []
        self._runtime = library.api.Runtime(make_logger(library, self._errors))
        self._engine = self._runtime.deserialize_cuda_engine(plan)
        if self._engine is None:
            raise PlanRefused(refusal(library, self._runtime, plan, self._errors))
        self._scratch_bytes = int(self._engine.device_memory_size_v2)
        self._scratch = cuda.allocate(self._scratch_bytes)
        self._buffers = _allocate(cuda, size)
        self._jit: Any = None
        self._config = self._runtime_config(jit)
        self._contexts: dict[int, Any] = {}  # by batch size: a captured graph keeps its context's shapes
        self._constants: dict[tuple[float, ...], tuple[int, int]] = {}  # weights and time -> addresses
        self._graphs: dict[tuple[int, int], Any] = {}  # (batch, steps) -> graph; None: could not be captured
        self.clock: DeviceClock | None = None  # times each run of all steps when there is one
        cuda.synchronize()

    def _runtime_config(self, jit: bytes) -> Any:
        """TensorRT-RTX: where it keeps what it compiles for this GPU; None for TensorRT."""
        if not self._library.flavour.portable:
            return None
        config = self._engine.create_runtime_config()
        config.set_execution_context_allocation_strategy(
            self._library.api.ExecutionContextAllocationStrategy.USER_MANAGED
        )
        self._jit = config.create_runtime_cache()
        if jit and not self._jit.deserialize(jit):
            log.info("the run-time cache of %s does not fit any more; it is made again", self._library.engine)
        config.set_runtime_cache(self._jit)
        return config

    def jit_cache(self) -> bytes:
        """What TensorRT-RTX has compiled so far, for the next start; empty for TensorRT."""
        if self._jit is None:
            return b""
        data = self._jit.serialize()
        return bytes(data) if data is not None else b""

    def set_noise(self, eps: NDArray[np.float32]) -> None:
        """The noise of the diffusion, (1, 3, S, S), for all later runs."""
        values = np.ascontiguousarray(eps, np.float16)
        self._cuda.upload(self._buffers.eps, values)
        self._cuda.synchronize()

    def correct(self, crops: NDArray[np.uint8], steps: int) -> tuple[NDArray[np.float16], NDArray[np.float32]]:
        """All steps for a batch from host memory, as one graph launch.

        Args:
            crops: (N, S, S, 3) uint8, N from 1 to ``MAX_BATCH``.
            steps: diffusion steps.

        Returns:
            Correction (N, S, S, 3) in 8-bit steps and level (N,); views that hold until the next call.

        Raises:
            CudaError, RunFailed: the GPU or the library failed.
        """
        n, host = len(crops), self._buffers
        host.host_crops[:n] = crops
        if (n, steps) not in self._graphs:
            self._graphs[n, steps] = self._capture(n, steps)
        else:
            with self._timed():
                graph = self._graphs[n, steps]
                if graph is not None:
                    self._cuda.launch(graph)
                else:
                    self._enqueue_with_copies(n, steps)
        self._cuda.synchronize()
        return host.host_correction[:n], host.host_level[:n]

    def correct_in_place(self, crops: int, correction: int, n: int, steps: int) -> NDArray[np.float32]:
        """All steps for a batch that lies on the GPU already; nothing but the level is copied.

        Args:
            crops: address of (N, S, S, 3) uint8.
            correction: address of (N, S, S, 3) fp16, to be written.

        Returns:
            Level (N,); a view that holds until the next call.
        """
        with self._timed():
            self._enqueue(n, steps, crops, correction)
            self._cuda.download(self._buffers.host_level[:n], self._buffers.level)
        self._cuda.synchronize()
        return self._buffers.host_level[:n]

    def denoise(self, x_t: NDArray[Any], crops: NDArray[np.uint8], t: float) -> NDArray[np.float16]:
        """One step from a given state: x_t (N, 3, S, S) in -1..1 -> x0 (N, 3, S, S), a view until the next call."""
        n, buffers = len(crops), self._buffers
        buffers.host_crops[:n], buffers.host_state[:n] = crops, x_t
        constants = self._constant((*_KEPT_STATE, t))
        self._cuda.upload(buffers.crops, buffers.host_crops[:n])
        self._cuda.upload(buffers.states[0], buffers.host_state[:n])
        context = self._context(n)
        self._step(context, constants, buffers.crops, buffers.states, buffers.correction)
        self._cuda.download(buffers.host_state[:n], buffers.states[1])
        self._cuda.synchronize()
        return buffers.host_state[:n]

    def denoise_in_place(self, state: int, crops: int, x0: int, n: int, t: float) -> None:
        """The same for addresses on the GPU: x_t and x0 (N, 3, S, S) fp16, crops (N, S, S, 3) uint8."""
        constants, context = self._constant((*_KEPT_STATE, t)), self._context(n)
        self._step(context, constants, crops, (state, x0), self._buffers.correction)
        self._cuda.synchronize()

    @contextmanager
    def _timed(self) -> Iterator[None]:
        """Bracket what the body puts on the stream with the clock's events; nothing without a clock."""
        if self.clock is None:
            yield
            return
        self.clock.start()
        yield
        self.clock.stop()

    def _capture(self, n: int, steps: int) -> Any:
        """Run once (the library puts work off until then), then record the same as a graph."""
        self._enqueue_with_copies(n, steps)
        self._cuda.synchronize()
        try:
            return self._cuda.capture(lambda: self._enqueue_with_copies(n, steps))
        except (CudaError, RunFailed) as error:
            log.warning("no CUDA graph for %d faces, %d steps, so each run costs more: %s", n, steps, error)
            return None

    def _enqueue_with_copies(self, n: int, steps: int) -> None:
        buffers = self._buffers
        self._cuda.upload(buffers.crops, buffers.host_crops[:n])
        self._enqueue(n, steps, buffers.crops, buffers.correction)
        self._cuda.download(buffers.host_correction[:n], buffers.correction)
        self._cuda.download(buffers.host_level[:n], buffers.level)

    def _enqueue(self, n: int, steps: int, crops: int, correction: int) -> None:
        """Put all steps on the stream."""
        constants = [self._constant((*bridge_weights(t), t)) for t in time_grid(steps)]
        context = self._context(n)
        state, (ping, pong) = self._buffers.zeros, self._buffers.states
        for step_constants in constants:
            self._step(context, step_constants, crops, (state, ping), correction)
            state, ping, pong = ping, pong, ping

    def _step(
        self, context: Any, constants: tuple[int, int], crops: int, states: tuple[int, int], correction: int
    ) -> None:
        """Put one step on the stream: from states[0] to states[1]."""
        mix, t = constants
        addresses = {
            "crops": crops,
            "state": states[0],
            "eps": self._buffers.eps,
            "mix": mix,
            "t": t,
            "x0": states[1],
            "correction": correction,
            "level": self._buffers.level,
        }
        for name, address in addresses.items():
            if not context.set_tensor_address(name, address):
                raise RunFailed(f"the plan has no tensor {name}")
        if not context.execute_async_v3(self._cuda.stream):
            raise RunFailed(self._errors[-1] if self._errors else "execute_async_v3 gave no reason")

    def _context(self, n: int) -> Any:
        """The execution context whose shapes are those of a batch of n; made on first use."""
        if n not in self._contexts:
            self._contexts[n] = self._make_context(n)
        return self._contexts[n]

    def _make_context(self, n: int) -> Any:
        strategy = self._library.api.ExecutionContextAllocationStrategy.USER_MANAGED
        context = self._engine.create_execution_context(strategy if self._config is None else self._config)
        if context is None:
            raise RunFailed(self._errors[-1] if self._errors else "no execution context could be made")
        # All contexts run one after the other on one stream: they can share their scratch memory.
        context.set_device_memory(self._scratch, self._scratch_bytes)
        ok = context.set_optimization_profile_async(profile_of(n), self._cuda.stream)
        for name, shape in input_shapes(n, self._size).items():
            ok = ok and context.set_input_shape(name, shape)
        if not ok:
            raise RunFailed(f"the plan does not take {n} faces: {self._errors[-1] if self._errors else 'no reason'}")
        self._cuda.synchronize()
        return context

    def _constant(self, values: tuple[float, ...]) -> tuple[int, int]:
        """Addresses of the weights (3,) fp16 and the time (MAX_BATCH,) f32 of a step; uploaded on first use."""
        if values not in self._constants:
            *mix, t = values
            pair = self._cuda.allocate(3 * 2), self._cuda.allocate(MAX_BATCH * 4)
            self._cuda.upload(pair[0], np.array(mix, np.float16))
            self._cuda.upload(pair[1], np.full(MAX_BATCH, t, np.float32))
            self._cuda.synchronize()
            self._constants[values] = pair
        return self._constants[values]

    def close(self) -> None:
        """Let go of everything the library holds, before the memory is freed."""
        self._graphs.clear()
        self._contexts.clear()
        self._config = self._jit = self._engine = self._runtime = None


def input_shapes(n: int, size: int) -> dict[str, tuple[int, ...]]:
    """Shape of every input of the plan for a batch of n."""
    picture = (3, size, size)
    return {"crops": (n, size, size, 3), "state": (n, *picture), "eps": (1, *picture), "mix": (3, 1, 1, 1), "t": (n,)}


def refusal(library: Library, runtime: Any, plan: bytes, errors: Sequence[str]) -> str:
    """Why a plan was refused, in words."""
    said = errors[0] if errors else "no reason given"
    if not hasattr(runtime, "get_engine_validity"):
        return said
    _, bits = runtime.get_engine_validity(plan)
    kinds = getattr(library.api, "EngineInvalidityDiagnostics", None)
    members = getattr(kinds, "__members__", {}) if kinds is not None else {}
    names = [name.lower().replace("_", " ") for name, kind in members.items() if int(bits) & int(kind)]
    return f"{', '.join(names)} ({said})" if names else said
