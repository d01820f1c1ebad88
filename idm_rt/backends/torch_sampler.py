"""All steps of a restoration in torch, without leaving the GPU: one CUDA graph per batch size and number of steps.

Tried on the CPU, where the same operations run without a graph; it has not been run on a GPU yet.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from idm_rt.backends.device_clock import DeviceClock
from idm_rt.diffusion import Denoiser, sample

Replay = Callable[[], None]
Capture = Callable[[Callable[[], None]], Replay]  # takes work on fixed tensors, returns how to do it again

_WARM_UPS = 3  # runs before a capture, as torch's notes on CUDA graphs ask for
_LARGEST_GRAPH = 32  # faces; a graph keeps its memory, and larger batches have nothing to gain


def correct(denoiser: Denoiser, crops: Tensor, eps: Tensor, steps: int) -> tuple[Tensor, Tensor]:
    """The sampler on 8-bit crops.

    Args:
        denoiser: takes and returns tensors of the type of ``eps``.
        crops: (N, S, S, 3) uint8.
        eps: (1, 3, S, S) noise.
        steps: diffusion steps.

    Returns:
        Correction (N, S, S, 3) float16 in 8-bit steps, and whether x0 is finite, (); clipping would hide that.
    """
    y = crops.permute(0, 3, 1, 2).to(eps.dtype, memory_format=torch.channels_last) / 127.5 - 1.0
    x0 = sample(denoiser, y, eps, steps)
    correction = (x0.clamp(-1.0, 1.0) - y) * 127.5
    return correction.permute(0, 2, 3, 1).to(torch.float16).contiguous(), torch.isfinite(x0).all()


def capture_cuda_graph(work: Callable[[], None]) -> Replay:
    """Record work on the GPU as a CUDA graph; it has run, then, and its results are there."""
    stream = torch.cuda.Stream()
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream):
        for _ in range(_WARM_UPS):
            work()
    torch.cuda.current_stream().wait_stream(stream)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph, capture_error_mode="thread_local"):
        work()
    graph.replay()
    return graph.replay


def cuda_clock(covers: str) -> DeviceClock:
    """A clock on the stream that torch uses now."""
    return DeviceClock(lambda: torch.cuda.Event(enable_timing=True), covers)


@dataclass(slots=True)
class _Captured:
    """One recorded batch size and number of steps."""

    crops: Tensor  # on the device; what the graph reads
    correction: Tensor  # what it writes
    finite: Tensor
    replay: Replay


class TorchSampler:
    """Runs ``correct`` on a device; a ``DeviceSampler`` but for the error when the output is not finite."""

    def __init__(self, denoiser: Denoiser, dtype: torch.dtype, device: str, capture: Capture | None) -> None:
        """Args: capture: ``capture_cuda_graph``; None = run without graphs."""
        self._denoiser, self._dtype, self._device, self._capture = denoiser, dtype, device, capture
        self._pin = device != "cpu"
        self._given_eps: NDArray[np.float32] | None = None
        self._eps: Tensor | None = None
        self._graphs: dict[tuple[int, int], _Captured] = {}
        self._staging: Tensor | None = None  # pinned host memory
        self.clock: DeviceClock | None = None  # times each run when there is one

    @torch.inference_mode()
    def correction(self, crops: Any, eps: NDArray[np.float32], steps: int) -> tuple[Any, bool]:
        """Correction, of the kind of ``crops`` (see ``DeviceSampler``), and whether the output is finite."""
        noise = self._noise(eps)
        on_host = isinstance(crops, np.ndarray)
        given = self._stage(crops) if on_host else crops
        if self.clock is not None:
            self.clock.start()
        if self._capture is None or len(crops) > _LARGEST_GRAPH:
            result, finite = correct(self._denoiser, given.to(self._device, non_blocking=True), noise, steps)
        else:
            recorded = self._recorded(given, noise, steps)
            result, finite = recorded.correction, recorded.finite
        if self.clock is not None:
            self.clock.stop()
        fine = bool(finite)  # waits for the device
        if on_host:
            return result.cpu().numpy().astype(np.float32), fine
        return result.clone() if self._capture is not None else result, fine

    def _noise(self, eps: NDArray[np.float32]) -> Tensor:
        if self._eps is None or eps is not self._given_eps:
            values = torch.from_numpy(np.ascontiguousarray(eps)).to(self._device, self._dtype)
            if self._eps is None:
                self._eps = values.to(memory_format=torch.channels_last)
            else:
                self._eps.copy_(values)  # in place: graphs read from there
            self._given_eps = eps
        return self._eps

    def _stage(self, crops: NDArray[np.uint8]) -> Tensor:
        """The crops in pinned memory, from where the GPU copies without a detour."""
        given = torch.from_numpy(np.ascontiguousarray(crops))
        if not self._pin:
            return given
        if self._staging is None or len(self._staging) < len(given):
            self._staging = torch.empty(given.shape, dtype=torch.uint8, pin_memory=True)
        staged = self._staging[: len(given)]
        return staged.copy_(given)

    def _recorded(self, crops: Tensor, eps: Tensor, steps: int) -> _Captured:
        """Run the graph for this batch, which is recorded first when there is none."""
        assert self._capture is not None
        key = len(crops), steps
        if key in self._graphs:
            recorded = self._graphs[key]
            recorded.crops.copy_(crops, non_blocking=True)
            recorded.replay()
            return recorded
        inputs = crops.to(self._device, copy=True)
        outputs = torch.empty(inputs.shape, dtype=torch.float16, device=self._device)
        finite = torch.empty((), dtype=torch.bool, device=self._device)

        def work() -> None:
            correction, fine = correct(self._denoiser, inputs, eps, steps)
            outputs.copy_(correction)
            finite.copy_(fine)

        self._graphs[key] = _Captured(inputs, outputs, finite, self._capture(work))
        return self._graphs[key]

    def close(self) -> None:
        """Let go of graphs and memory."""
        self._graphs.clear()
        self._staging = self._eps = None
