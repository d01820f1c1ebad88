"""The CUDA run time, as far as it is needed here: memory, one stream, graphs. The only file that imports cuda.

``cuda-bindings`` (12 MB) is enough: pixels are converted inside the plan, so no kernel of our own is ever compiled.
"""

from __future__ import annotations

import ctypes
import importlib
from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import DTypeLike, NDArray

from idm_rt.errors import EngineError

_ALIGNMENT = 256  # bytes; of everything cudaMalloc returns


class CudaError(RuntimeError):
    """A call of the CUDA run time failed."""


class CudaEvent:
    """A mark on the stream of a ``CudaDevice``, which makes and frees it; a ``DeviceEvent``."""

    def __init__(self, call: Callable[..., Any], handle: Any, stream: Any) -> None:
        self._call, self._handle, self._stream = call, handle, stream

    def record(self) -> None:
        self._call("cudaEventRecord", self._handle, self._stream)

    def synchronize(self) -> None:
        self._call("cudaEventSynchronize", self._handle)

    def elapsed_time(self, end_event: CudaEvent, /) -> float:
        return float(self._call("cudaEventElapsedTime", self._handle, end_event._handle))


class CudaDevice:
    """The first GPU with one stream; owns everything it hands out. Use it from one thread at a time."""

    def __init__(self, runtime: Any = None) -> None:
        """Args: runtime: the module cuda.bindings.runtime; None = import it.

        Raises:
            EngineError: the package is not installed, or there is no GPU that works.
        """
        self._rt = runtime or _import_runtime()
        self._device: list[int] = []
        self._pinned: list[int] = []
        self._graphs: list[Any] = []
        self._events: list[Any] = []
        try:
            self._call("cudaSetDevice", 0)
            self._stream: Any = self._call("cudaStreamCreateWithFlags", self._rt.cudaStreamNonBlocking)
        except CudaError as error:
            raise EngineError(f"no NVIDIA GPU can be used here: {error}; check the driver with nvidia-smi") from error

    @property
    def stream(self) -> int:
        """Handle of the stream, for TensorRT."""
        return int(self._stream)

    def allocate(self, size: int) -> int:
        """Address of ``size`` zero bytes on the GPU, freed by ``close``."""
        address = int(self._call("cudaMalloc", max(size, _ALIGNMENT)))
        self._device.append(address)
        self._call("cudaMemsetAsync", address, 0, max(size, _ALIGNMENT), self._stream)
        return address

    def pinned(self, shape: tuple[int, ...], dtype: DTypeLike) -> NDArray[Any]:
        """An array in host memory that the GPU copies from and to without a detour. Not to be used after ``close``."""
        kind = np.dtype(dtype)
        size = max(int(np.prod(shape)) * kind.itemsize, 1)
        address = int(self._call("cudaMallocHost", size))
        self._pinned.append(address)
        memory = np.ctypeslib.as_array((ctypes.c_ubyte * size).from_address(address))
        return memory[: int(np.prod(shape)) * kind.itemsize].view(kind).reshape(shape)

    def upload(self, address: int, values: NDArray[Any]) -> None:
        """Copy a contiguous array to the GPU, in the order of the stream."""
        kind = self._rt.cudaMemcpyKind.cudaMemcpyHostToDevice
        self._call("cudaMemcpyAsync", address, values.ctypes.data, values.nbytes, kind, self._stream)

    def download(self, values: NDArray[Any], address: int) -> None:
        """Copy from the GPU into a contiguous array; it is there after ``synchronize``."""
        kind = self._rt.cudaMemcpyKind.cudaMemcpyDeviceToHost
        self._call("cudaMemcpyAsync", values.ctypes.data, address, values.nbytes, kind, self._stream)

    def synchronize(self) -> None:
        """Wait for everything on the stream; the thread sleeps no longer than that."""
        self._call("cudaStreamSynchronize", self._stream)

    def use_in_this_thread(self) -> None:
        """Each thread has a current GPU of its own."""
        self._call("cudaSetDevice", 0)

    def capture(self, work: Callable[[], None]) -> Any:
        """A graph of what ``work`` puts on the stream; nothing of it runs now.

        Raises:
            CudaError: something in it cannot be captured; the stream is usable again then.
        """
        # Thread-local: another thread's CUDA calls (torch, a second engine) neither fail nor spoil the capture.
        self._call(
            "cudaStreamBeginCapture", self._stream, self._rt.cudaStreamCaptureMode.cudaStreamCaptureModeThreadLocal
        )
        try:
            work()
        except BaseException:
            self._rt.cudaStreamEndCapture(self._stream)  # reports the same failure once more
            raise
        graph = self._call("cudaStreamEndCapture", self._stream)
        try:
            executable = self._call("cudaGraphInstantiate", graph, 0)
        finally:
            self._rt.cudaGraphDestroy(graph)
        self._graphs.append(executable)
        return executable

    def launch(self, graph: Any) -> None:
        """Run a captured graph, in the order of the stream."""
        self._call("cudaGraphLaunch", graph, self._stream)

    def event(self) -> CudaEvent:
        """A new event, freed by ``close``."""
        handle = self._call("cudaEventCreate")
        self._events.append(handle)
        return CudaEvent(self._call, handle, self._stream)

    def close(self) -> None:
        """Free everything; calling it twice is fine. Errors are of no use to anybody any more."""
        if self._stream is None:
            return
        self._rt.cudaStreamSynchronize(self._stream)
        for event in self._events:
            self._rt.cudaEventDestroy(event)
        for graph in self._graphs:
            self._rt.cudaGraphExecDestroy(graph)
        for address in self._device:
            self._rt.cudaFree(address)
        for address in self._pinned:
            self._rt.cudaFreeHost(address)
        self._rt.cudaStreamDestroy(self._stream)
        self._stream = None
        self._graphs, self._events, self._device, self._pinned = [], [], [], []

    def _call(self, name: str, *arguments: Any) -> Any:
        """Call the run time; returns what it returns behind the status."""
        status, *values = getattr(self._rt, name)(*arguments)
        if int(status) != 0:
            text = self._rt.cudaGetErrorString(status)[1]
            raise CudaError(f"{name}: {text.decode() if isinstance(text, bytes) else text} ({int(status)})")
        return values[0] if values else None


def _import_runtime() -> Any:
    try:
        return importlib.import_module("cuda.bindings.runtime")
    except (ImportError, OSError) as error:
        raise EngineError(
            f"the package cuda-bindings cannot be imported ({error}); pip install 'cuda-bindings>=12.9,<14'"
        ) from error
