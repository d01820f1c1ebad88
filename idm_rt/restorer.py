"""Aligned faces in, restored faces out: the few-step sampler on whatever engine this machine has."""

from __future__ import annotations

import logging
from collections.abc import Iterable
from pathlib import Path
from types import TracebackType
from typing import Self

import cv2
import numpy as np
from numpy.typing import NDArray

from idm_rt.backends import Backend, EngineChoice, open_backend
from idm_rt.backends.base import not_finite
from idm_rt.backends.device_clock import DeviceClock
from idm_rt.diffusion import KAPPA, sample
from idm_rt.errors import ModelError
from idm_rt.geometry import ALIGN_TEMPLATE
from idm_rt.model_manifest import ModelManifest
from idm_rt.model_store import find_model

logger = logging.getLogger(__name__)

_NOISE_SEED = 0


class Restorer:
    """A restorer model opened on an engine.

    The noise of the diffusion is one fixed array for all faces and frames: the same crop always gives the same
    result, whatever else is in its batch, and a still face does not flicker. One thread at a time.
    """

    def __init__(self, choice: EngineChoice, manifest: ModelManifest) -> None:
        """Take over an opened engine; ``open_restorer`` is the usual way.

        Raises:
            ModelError: the model was trained for another noise level or another alignment than this version's.
        """
        check_compatible(manifest)
        self.manifest = manifest
        self.reason = choice.reason  # why this engine
        self.passed_over = choice.passed_over  # (engine, reason) of each faster one that was not taken
        self._backend: Backend = choice.backend
        size = manifest.crop_size
        self._eps = np.random.default_rng(_NOISE_SEED).standard_normal((1, 3, size, size), dtype=np.float32)
        self._first_noise = np.float32(KAPPA) * self._eps

    @property
    def engine(self) -> str:
        """Name of the engine, as in ``idm_rt.config.ENGINES``."""
        return self._backend.name

    @property
    def precision(self) -> str:
        """Arithmetic of the engine: "f32", "bf16", "fp16" or "int8"."""
        return self._backend.precision

    @property
    def precision_reason(self) -> str:
        """Why this arithmetic, in words."""
        return self._backend.precision_reason

    @property
    def device(self) -> str:
        """Where it runs: "cpu", "cuda:0"."""
        return self._backend.device

    @property
    def size(self) -> int:
        """Side S of the crops, px."""
        return self.manifest.crop_size

    def restore(self, crops: NDArray[np.uint8], steps: int = 1) -> NDArray[np.uint8]:
        """Restore aligned faces.

        Args:
            crops: (N, S, S, 3) uint8 RGB, aligned as in ``idm_rt.geometry``; N may be 0.
            steps: diffusion steps, one of the model's; more cost more and refine more.

        Returns:
            (N, S, S, 3) uint8 RGB.

        Raises:
            TypeError: not a uint8 array.
            ValueError: another shape, or steps the model was not trained for.
            EngineError: the engine failed, or its output is not finite.
        """
        self._check(crops, steps)
        device = self._backend.on_device(steps)
        if device is not None and len(crops):
            restored = crops + device.correction(crops, self._eps, steps)
            return np.clip(np.rint(restored), 0, 255).astype(np.uint8)
        x0 = self._restore(crops, steps)[1]
        out = np.empty(crops.shape, np.uint8)
        for target, planes in zip(out, x0, strict=True):
            image = cv2.merge(tuple(planes))
            cv2.addWeighted(image, 127.5, image, 0.0, 127.5, dst=target, dtype=cv2.CV_8U)  # rounds and saturates
        return out

    def correction(self, crops: NDArray[np.uint8], steps: int = 1) -> NDArray[np.float32]:
        """What ``restore`` would change: (N, S, S, 3) float32, restored minus crop in 8-bit steps, not rounded.

        Arguments and errors are those of ``restore``. Crop plus correction lies in 0..255.
        """
        self._check(crops, steps)
        device = self._backend.on_device(steps)
        if device is not None and len(crops):
            correction: NDArray[np.float32] = device.correction(crops, self._eps, steps)
            return correction
        y, x0 = self._restore(crops, steps)
        np.clip(x0, -1.0, 1.0, out=x0)
        x0 -= y
        x0 *= 127.5
        out = np.empty(crops.shape, np.float32)
        for target, planes in zip(out, x0, strict=True):
            cv2.merge(tuple(planes), dst=target)
        return out

    def _restore(self, crops: NDArray[np.uint8], steps: int) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """y and x_0, both (N, 3, S, S) float32 in the range -1..1 (x_0 not clipped)."""
        y = to_planes(crops)
        if len(y) == 0:
            return y, y.copy()
        if steps == 1:  # equation (1) at t = 1, without the terms that vanish: 0.1 ms less
            x0 = self._backend.denoise(y + self._first_noise, y, 1.0)
        else:
            x0 = sample(self._backend.denoise, y, self._eps, steps)
        if not np.isfinite(x0).all():
            raise not_finite(self._backend)
        return y, x0

    def _check(self, crops: NDArray[np.uint8], steps: int) -> None:
        if not isinstance(crops, np.ndarray) or crops.dtype != np.uint8:
            found = crops.dtype if isinstance(crops, np.ndarray) else type(crops).__name__
            raise TypeError(f"crops must be a uint8 RGB array (0..255), found {found}")
        if crops.ndim != 4 or crops.shape[1:] != (self.size, self.size, 3):
            raise ValueError(f"crops must have shape (N, {self.size}, {self.size}, 3), found {crops.shape}")
        if steps not in self.manifest.steps:
            offered = ", ".join(map(str, self.manifest.steps))
            raise ValueError(f"steps is {steps!r}; model {self.manifest.name} offers {offered}")

    def device_clock(self) -> DeviceClock | None:
        """See ``Backend.device_clock``."""
        return self._backend.device_clock()

    def warm_up(self, batch_sizes: Iterable[int] = (1,)) -> None:
        """Run each batch size once, so that no later call pays for lazy set-up."""
        self._backend.warm_up(batch_sizes)
        device = self._backend.on_device(1)
        if device is not None:
            for count in batch_sizes:
                device.correction(np.zeros((count, self.size, self.size, 3), np.uint8), self._eps, 1)

    def close(self) -> None:
        """Free the engine; calling it twice is fine."""
        self._backend.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def to_planes(crops: NDArray[np.uint8]) -> NDArray[np.float32]:
    """(N, S, S, 3) uint8 in 0..255 -> (N, 3, S, S) float32 in -1..1, contiguous."""
    y = crops.transpose(0, 3, 1, 2).astype(np.float32, order="C")
    y *= np.float32(1 / 127.5)
    y -= np.float32(1)
    return y


def check_compatible(manifest: ModelManifest) -> None:
    """Refuse a model that this version would run, but wrongly.

    Raises:
        ModelError: its noise level or its alignment is not that of ``idm_rt.diffusion`` and ``idm_rt.geometry``.
    """
    if abs(manifest.kappa - KAPPA) > 1e-9:
        raise ModelError(
            f"model {manifest.name!r} was trained with kappa {manifest.kappa}, this version samples with {KAPPA}; "
            "use a model exported by this version"
        )
    if not np.allclose(manifest.align_template, ALIGN_TEMPLATE, atol=1e-3):
        raise ModelError(
            f"model {manifest.name!r} was trained on crops aligned to {manifest.align_template}, "
            f"this version aligns to {ALIGN_TEMPLATE.tolist()}; use a model exported by this version"
        )


def open_restorer(
    model: str | Path | None = None,
    engine: str = "auto",
    threads: int | None = None,
    require_gpu: bool = False,
    precision: str = "auto",
) -> Restorer:
    """Open a restorer model on an engine.

    Args:
        model: name of a shipped model or path of a folder with a model.json; None = the default model.
        engine: one of ``idm_rt.config.ENGINES``; "auto" takes the fastest that works here and says which and why.
        threads: inference threads on the CPU; None = every CPU this process may use.
        require_gpu: fail where the engine would run on the CPU.
        precision: one of ``idm_rt.config.PRECISIONS``; "auto" takes what the engine is best with and says why.

    Raises:
        ModelError: unknown, missing or corrupt model.
        EngineError: the engine is not available or cannot be opened.
    """
    manifest = find_model(model)
    check_compatible(manifest)
    restorer = Restorer(open_backend(engine, manifest, threads, precision, require_gpu), manifest)
    logger.info("model %s on %s (%s): %s", manifest.name, restorer.engine, restorer.precision, restorer.reason)
    return restorer
