"""What a device can do at most, measured: a large matrix product and a large copy."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from idm_rt.errors import EngineError

_REPEATS = 5  # the best counts: a peak is what the device can, not what it did beside other work


@dataclass(frozen=True, slots=True)
class Peak:
    """Of one device, in one arithmetic."""

    gflops: float  # 1e9 multiplications and additions per second in a matrix product
    copy_gb_s: float  # 1e9 bytes per second, read and written counted once each
    arithmetic: str  # "f32", "bf16", "int8" or "fp16"


def measure_peak(device: str, precision: str = "f32") -> Peak:
    """Measure a device in an engine's arithmetic.

    Args:
        device: "cpu" (OpenVINO on all cores, or numpy's BLAS without it) or "cuda:0" (torch).
        precision: of the engine; a GPU is measured in fp16 whatever it is.
    """
    return _cpu_peak(precision) if device == "cpu" else _cuda_peak(device)


def _cpu_peak(precision: str, side: int = 1536, megabytes: int = 64) -> Peak:
    source = np.zeros(megabytes * 1_000_000, np.uint8)
    target = np.empty_like(source)
    copy_s = _fastest(lambda: np.copyto(target, source))
    product, arithmetic = _cpu_product(side, precision)
    return Peak(round(2e-9 * side**3 / _fastest(product), 1), round(2e-9 * source.nbytes / copy_s, 1), arithmetic)


def _cpu_product(side: int, precision: str) -> tuple[Callable[[], object], str]:
    try:
        from idm_rt.backends.openvino_peak import matrix_product

        return matrix_product(side, precision), precision
    except (ImportError, EngineError):
        generator = np.random.default_rng(0)
        a, b = (generator.standard_normal((side, side), dtype=np.float32) for _ in "ab")
        out = np.empty_like(a)
        return lambda: np.matmul(a, b, out=out), "f32"


def _cuda_peak(device: str, side: int = 8192, megabytes: int = 1024) -> Peak:
    import torch

    a, b = (torch.randn(side, side, device=device, dtype=torch.float16) for _ in "ab")
    source = torch.zeros(megabytes * 1_000_000, device=device, dtype=torch.uint8)
    target = torch.empty_like(source)

    def timed(work: Callable[[], object]) -> Callable[[], None]:
        def run() -> None:
            work()
            torch.cuda.synchronize(device)

        return run

    product_s = _fastest(timed(lambda: torch.matmul(a, b)))
    copy_s = _fastest(timed(lambda: target.copy_(source)))
    return Peak(round(2e-9 * side**3 / product_s, 1), round(2e-9 * source.numel() / copy_s, 1), "fp16")


def _fastest(work: Callable[[], object]) -> float:
    work()
    durations = []
    for _ in range(_REPEATS):
        start = time.perf_counter()
        work()
        durations.append(time.perf_counter() - start)
    return min(durations)
