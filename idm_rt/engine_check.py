"""Whether an engine computes what the reference computes, within the tolerance of the model's manifest."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from idm_rt.backends import open_backend
from idm_rt.errors import ModelError
from idm_rt.golden_crops import golden_crops
from idm_rt.model_manifest import ModelManifest
from idm_rt.restorer import Restorer, check_compatible

_REFERENCES = {"onnxruntime": "openvino"}  # every engine is compared with onnxruntime, that one with another
_PEAK = 255.0


@dataclass(frozen=True, slots=True)
class EngineCheck:
    """The outcome for one number of steps."""

    engine: str
    precision: str
    device: str
    reference: str  # engine that computed in f32 what is expected
    batch: int
    steps: int
    psnr_db: float  # of the restored faces, not rounded to 8 bits; inf when equal
    worst: float  # largest difference of a pixel, in 8-bit steps
    tolerance_db: float  # smallest PSNR that the manifest allows for this precision

    @property
    def ok(self) -> bool:
        return self.psnr_db >= self.tolerance_db


def check_engine_output(
    engine: str,
    manifest: ModelManifest,
    batch: int = 1,
    steps: tuple[int, ...] | None = None,
    require_gpu: bool = False,
    precision: str = "auto",
) -> list[EngineCheck]:
    """Restore the golden crops on an engine and on the reference.

    Args:
        engine: one of ``idm_rt.config.ENGINES``.
        manifest: the model.
        batch: faces per call; the golden crops are repeated or cut to whole batches.
        steps: numbers of diffusion steps; None = all that the model offers.
        require_gpu: fail where the engine would run on the CPU.
        precision: one of ``idm_rt.config.PRECISIONS``.

    Raises:
        EngineError: the engine cannot be opened or fails.
        ModelError: the manifest has no tolerance for the engine's precision.
    """
    check_compatible(manifest)
    crops = golden_crops(manifest.crop_size)
    crops = np.resize(crops, (max(batch, len(crops)), *crops.shape[1:]))  # repeats them
    numbers = steps or manifest.steps
    with Restorer(open_backend(engine, manifest, precision=precision, require_gpu=require_gpu), manifest) as restorer:
        found = {n: _in_batches(restorer, crops, n, batch) for n in numbers}
        name, found_in, device = restorer.engine, restorer.precision, restorer.device
    tolerance = manifest.tolerance.get(f"{found_in}_db")
    if tolerance is None:
        raise ModelError(
            f"model {manifest.name!r} names no tolerance for {found_in}, only {', '.join(manifest.tolerance)}; "
            "export it again"
        )
    reference = _REFERENCES.get(name, "onnxruntime")
    with Restorer(open_backend(reference, manifest, precision="f32"), manifest) as restorer:
        expected = {n: _in_batches(restorer, crops, n, batch) for n in numbers}
    return [
        EngineCheck(name, found_in, device, reference, batch, n, *_error(found[n], expected[n]), tolerance)
        for n in numbers
    ]


def _in_batches(restorer: Restorer, crops: NDArray[np.uint8], steps: int, batch: int) -> NDArray[np.float32]:
    parts = [restorer.correction(crops[i : i + batch], steps) for i in range(0, len(crops), batch)]
    return np.concatenate(parts)


def _error(found: NDArray[np.float32], expected: NDArray[np.float32]) -> tuple[float, float]:
    """(PSNR in dB, largest difference) of corrections in 8-bit steps."""
    difference = found.astype(np.float64) - expected
    mean = float(np.mean(difference**2))
    return (math.inf if mean == 0 else 10 * math.log10(_PEAK**2 / mean)), float(np.abs(difference).max())
