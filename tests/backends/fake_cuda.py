"""A stand-in for ``cuda.bindings.runtime``: the GPU is host memory, the rules are CUDA's.

What it holds the caller to: memory is alive and inside one allocation; only pinned memory is copied from and to while a
graph is captured, and nothing is allocated then; captured work does not run until the graph is launched; a graph runs
with the addresses it was captured with; everything is freed once.
"""

from __future__ import annotations

import ctypes
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

OK, INVALID_VALUE, MEMORY, CAPTURE_UNSUPPORTED, NO_DRIVER = 0, 1, 2, 900, 35


class FakeCuda:
    """The functions of the run time that are used. ``limit``: bytes of the GPU's memory."""

    cudaStreamNonBlocking = 1
    cudaMemcpyKind = SimpleNamespace(cudaMemcpyHostToDevice=1, cudaMemcpyDeviceToHost=2)
    cudaStreamCaptureMode = SimpleNamespace(cudaStreamCaptureModeThreadLocal=1)

    def __init__(self, limit: int = 1 << 30, driver: bool = True) -> None:
        self.limit, self.driver = limit, driver
        self.device: dict[int, Any] = {}
        self.pinned: dict[int, Any] = {}
        self.capturing: list[Callable[[], None]] | None = None
        self.capture_spoilt = False
        self.graphs: dict[int, list[Callable[[], None]]] = {}
        self.streams: set[int] = set()
        self.events: dict[int, int | None] = {}  # number of copies when it was recorded
        self.launches = 0
        self.copies = 0
        self._next = 7

    # --- life ---
    def cudaSetDevice(self, index: int) -> tuple[int]:
        return (OK if self.driver else NO_DRIVER,)

    def cudaGetErrorString(self, status: int) -> tuple[int, bytes]:
        return OK, {MEMORY: b"out of memory", NO_DRIVER: b"CUDA driver version is insufficient"}.get(status, b"invalid")

    def cudaStreamCreateWithFlags(self, flags: int) -> tuple[int, int]:
        assert flags == self.cudaStreamNonBlocking
        self._next += 1
        self.streams.add(self._next)
        return OK, self._next

    def cudaStreamDestroy(self, stream: int) -> tuple[int]:
        self.streams.remove(stream)
        return (OK,)

    def cudaMalloc(self, size: int) -> tuple[int, Any]:
        if self.capturing is not None:
            self.capture_spoilt = True
            return CAPTURE_UNSUPPORTED, None
        if sum(len(b) for b in self.device.values()) + size > self.limit:
            return MEMORY, None
        buffer = ctypes.create_string_buffer(b"\xff" * size, size)  # as dirty as real memory
        self.device[ctypes.addressof(buffer)] = buffer
        return OK, ctypes.addressof(buffer)

    def cudaFree(self, address: int) -> tuple[int]:
        del self.device[address]
        return (OK,)

    def cudaMallocHost(self, size: int) -> tuple[int, Any]:
        assert self.capturing is None
        buffer = ctypes.create_string_buffer(size)
        self.pinned[ctypes.addressof(buffer)] = buffer
        return OK, ctypes.addressof(buffer)

    def cudaFreeHost(self, address: int) -> tuple[int]:
        del self.pinned[address]
        return (OK,)

    # --- work ---
    def enqueue(self, stream: int, work: Callable[[], None]) -> None:
        """Run now, or record while capturing."""
        assert stream in self.streams, "work on a stream that is not there"
        if self.capturing is None:
            work()
        else:
            self.capturing.append(work)

    def check(self, address: int, size: int, memory: dict[int, Any]) -> None:
        """The range lies in one live allocation."""
        inside = any(start <= address and address + size <= start + len(b) for start, b in memory.items())
        assert inside, f"{size} bytes at {address:#x} are not in one allocation"

    def cudaMemsetAsync(self, address: int, value: int, size: int, stream: int) -> tuple[int]:
        self.check(address, size, self.device)
        self.enqueue(stream, lambda: ctypes.memset(address, value, size) and None)
        return (OK,)

    def cudaMemcpyAsync(self, to: int, source: int, size: int, kind: int, stream: int) -> tuple[int]:
        device, host = (to, source) if kind == 1 else (source, to)
        self.check(device, size, self.device)
        if self.capturing is not None:
            self.check(host, size, self.pinned)

        def copy() -> None:
            self.copies += 1
            ctypes.memmove(to, source, size)

        self.enqueue(stream, copy)
        return (OK,)

    def cudaStreamSynchronize(self, stream: int) -> tuple[int]:
        assert stream in self.streams
        if self.capturing is not None:
            self.capture_spoilt = True
            return (CAPTURE_UNSUPPORTED,)
        return (OK,)

    # --- graphs ---
    def cudaStreamBeginCapture(self, stream: int, mode: int) -> tuple[int]:
        assert self.capturing is None and mode == 1
        self.capturing, self.capture_spoilt = [], False
        return (OK,)

    def cudaStreamEndCapture(self, stream: int) -> tuple[int, Any]:
        work, self.capturing = self.capturing, None
        return (CAPTURE_UNSUPPORTED, None) if self.capture_spoilt else (OK, work)

    def cudaGraphInstantiate(self, graph: list[Callable[[], None]], flags: int) -> tuple[int, int]:
        self._next += 1
        self.graphs[self._next] = list(graph)
        return OK, self._next

    def cudaGraphDestroy(self, graph: Any) -> tuple[int]:
        graph.clear()  # the executable has a copy
        return (OK,)

    def cudaGraphExecDestroy(self, graph: int) -> tuple[int]:
        del self.graphs[graph]
        return (OK,)

    def cudaGraphLaunch(self, graph: int, stream: int) -> tuple[int]:
        assert self.capturing is None
        self.launches += 1
        for work in self.graphs[graph]:
            self.enqueue(stream, work)
        return (OK,)

    # --- events ---
    def cudaEventCreate(self) -> tuple[int, int]:
        self._next += 1
        self.events[self._next] = None
        return OK, self._next

    def cudaEventRecord(self, event: int, stream: int) -> tuple[int]:
        assert self.capturing is None and stream in self.streams
        self.events[event] = self.copies
        return (OK,)

    def cudaEventSynchronize(self, event: int) -> tuple[int]:
        return (OK if self.events[event] is not None else INVALID_VALUE,)

    def cudaEventElapsedTime(self, start: int, end: int) -> tuple[int, float]:
        """A copy takes a millisecond here."""
        return OK, float(self.events[end] - self.events[start])

    def cudaEventDestroy(self, event: int) -> tuple[int]:
        del self.events[event]
        return (OK,)
