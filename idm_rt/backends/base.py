"""What every inference engine looks like from outside."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Protocol, Self

import numpy as np
from numpy.typing import NDArray

from idm_rt.backends.device_clock import DeviceClock
from idm_rt.errors import EngineError


class DeviceSampler(Protocol):
    """All steps of a restoration inside the engine: 8-bit crops in, corrections out, nothing between."""

    def correction(self, crops: Any, eps: NDArray[np.float32], steps: int) -> Any:
        """Restored minus crop, in 8-bit steps.

        Args:
            crops: (N, S, S, 3) uint8 RGB; a numpy array, or a torch tensor on the engine's device: nothing is copied
                to the host then.
            eps: (1, 3, S, S) noise of the diffusion; uploaded again only when it is another array.
            steps: diffusion steps.

        Returns:
            (N, S, S, 3) float32, or a float16 tensor on the device for a tensor; crop plus correction lies in 0..255.

        Raises:
            EngineError: the engine failed, or its output is not finite.
        """
        ...


class Backend(Protocol):
    """One model opened on one engine; evaluates one denoising step at a time.

    ``denoise`` is a ``Denoiser`` of ``idm_rt.diffusion``: numpy in and out; an engine on a GPU may also accept its
    own device tensors and then returns such a tensor, without a copy. Life: open, ``warm_up``, ``denoise`` as often
    as needed from one thread at a time, ``close``; or a ``with`` block.
    """

    name: str  # as in idm_rt.config.ENGINES
    precision: str  # of the arithmetic: "f32", "bf16", "fp16" or "int8"
    precision_reason: str = "the only one that this engine has"  # why this precision
    device: str  # "cpu", "cuda:0"
    size: int  # S, side of the crop in px

    def denoise(self, x_t: Any, y: Any, t: float) -> Any:
        """Estimate x_0: (N, 3, S, S) float32 arrays in -1..1 and a time in 0..1 -> (N, 3, S, S) float32.

        N may be 0. The result belongs to the caller. It does not depend on the position in the batch.

        Raises:
            EngineError: the engine failed while running.
            ValueError: shapes that do not fit, or the backend is closed.
        """
        ...

    def on_device(self, steps: int) -> DeviceSampler | None:
        """How the engine does so many steps of a restoration all by itself; None = ``denoise`` for each."""
        return None

    def device_clock(self) -> DeviceClock | None:
        """From the first call on, the engine's runs ``on_device`` are timed by the device's events.

        Returns:
            The clock to read after each run; None on a CPU, and where the engine keeps its stream to itself.
        """
        return None

    def warm_up(self, batch_sizes: Iterable[int] = (1,)) -> None:
        """Run each batch size once, so that no later call pays for lazy set-up."""
        for n in batch_sizes:
            zeros = np.zeros((n, 3, self.size, self.size), np.float32)
            self.denoise(zeros, zeros.copy(), 1.0)

    def close(self) -> None:
        """Free the engine; calling it twice is fine."""
        ...

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


@dataclass(frozen=True, slots=True)
class EngineStatus:
    """Whether an engine can be used here, found without loading anything heavy."""

    name: str
    available: bool
    reason: str  # why, or why not and what to do
    version: str | None  # of its package; None when it is not installed
    # False: this machine has not the device the engine is for, so nothing is lost by passing it over
    applicable: bool = True


@dataclass(frozen=True, slots=True)
class EngineChoice:
    """An opened engine and how it was chosen."""

    backend: Backend
    reason: str
    passed_over: tuple[tuple[str, str], ...] = ()  # (engine, reason) of each faster one that was not taken


def check_batch(x_t: Any, y: Any, size: int) -> None:
    """Raise ValueError unless both arrays are (N, 3, size, size)."""
    shape = tuple(y.shape)
    if tuple(x_t.shape) != shape or len(shape) != 4 or shape[1:] != (3, size, size):
        raise ValueError(f"x_t and y must be (N, 3, {size}, {size}), found {tuple(x_t.shape)} and {shape}")


def one_line(error: BaseException) -> str:
    """The telling line of a runtime's error, which may carry a C++ stack."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    telling = [line for line in lines if not line.startswith("Exception from")]
    return (telling or lines or [type(error).__name__])[0]


def run_failure(backend: Backend, error: BaseException) -> EngineError:
    """The error to raise when an engine fails in the middle of its work."""
    return EngineError(
        f"engine {backend.name} ({backend.precision}, {backend.device}) failed while running: {one_line(error)}; "
        "try another one with --engine"
    )


def not_finite(backend: Backend) -> EngineError:
    """The error to raise when an engine computes nan or infinity."""
    return EngineError(
        f"engine {backend.name} ({backend.precision}) gave values that are not finite; "
        "expected a picture; try another one with --engine"
    )


def open_failure(engine: str, error: BaseException) -> EngineError:
    """The error to raise when an installed engine cannot be loaded or refuses the model."""
    return EngineError(f"engine {engine} could not be opened: {one_line(error)}; try another one with --engine")
