"""Measure an engine alone: latency of one face, faces per second by batch size, its part of the machine's peak."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from idm_rt.backends.nvidia import first_gpu
from idm_rt.backends.peak import Peak, measure_peak
from idm_rt.bench import Progress
from idm_rt.config import EnhancerConfig
from idm_rt.errors import ConfigError
from idm_rt.golden_crops import golden_crops
from idm_rt.machine import describe_machine, describe_versions, git_commit, peak_resident_mb
from idm_rt.report import describe_restorer
from idm_rt.restorer import Restorer, open_restorer
from idm_rt.timing import Clock, summarize_ms

SCHEMA = 1
KIND = "engine"
STREAM_FPS = 30
BATCHES = (1, 2, 4, 8, 16, 32)


@dataclass(frozen=True, slots=True)
class EngineBenchOptions:
    """What to measure."""

    batches: tuple[int, ...] = BATCHES
    runs: int = 100  # of one face; larger batches run for about as long
    config: EnhancerConfig = field(default_factory=EnhancerConfig)  # engine, model, steps, threads

    def __post_init__(self) -> None:
        if self.runs < 10 or not self.batches or min(self.batches) < 1:
            raise ConfigError(f"runs {self.runs}, batches {self.batches}; expected runs from 10 and batches from 1")


def measure_engine(
    options: EngineBenchOptions,
    *,
    clock: Clock = time.perf_counter,
    opener: Callable[[EnhancerConfig], Restorer] | None = None,
    measure: Callable[[str, str], Peak] = measure_peak,
    progress: Progress | None = None,
) -> dict[str, Any]:
    """Open an engine, run it, and return one row of plain values.

    Times are those of a caller: copies are in them. ``device_ms`` beside them is what the device's events say, None on
    a CPU; ``device_time_of`` names what lies between those events.

    Args:
        clock: monotonic seconds; a test may turn its own.
        opener: None = ``open_engine``.
        measure: of a device's peak in a precision.
        progress: see ``idm_rt.enhance_files``.

    Raises:
        ModelError, EngineError: it cannot be opened or fails.
    """
    config = options.config
    start = clock()
    with (opener or open_engine)(config) as restorer:
        opened = clock()
        crops = golden_crops(restorer.size)
        restorer.correction(crops[:1], config.steps)
        first = clock()
        peaks = [measure(restorer.device, restorer.precision)]
        sizes = sorted(options.batches)
        batches = [
            _measure_batch(restorer, crops, n, options, clock)
            for n in (progress(sizes, len(sizes), "batch sizes") if progress else sizes)
        ]
        peaks.append(
            measure(restorer.device, restorer.precision)
        )  # the machine may have been busy during one of the two
        best = max(batch["faces_per_s"] for batch in batches)
        gpu = first_gpu() if restorer.device != "cpu" else None
        return {
            "schema": SCHEMA,
            "kind": KIND,
            "steps": config.steps,
            "threads": config.threads,
            **describe_restorer(restorer),
            "open_s": round(opened - start, 3),  # with the build of a plan, if there was none
            "first_call_s": round(first - opened, 3),
            "batches": batches,
            "device_time_of": device_clock.covers if (device_clock := restorer.device_clock()) else None,
            "faces_per_s": best,
            "streams_30_fps": streams(batches),
            "peak": _part_of_peak(restorer, peaks, best * config.steps),
            "memory_peak_mb": round(peak_resident_mb(), 1),
            "device": asdict(gpu) if gpu else None,
            "machine": describe_machine(),
            "versions": describe_versions(),
            "commit": git_commit(),
        }


def open_engine(config: EnhancerConfig) -> Restorer:
    """The restorer of a configuration; raises as ``open_restorer`` does."""
    return open_restorer(config.model, config.engine, config.threads, config.require_gpu, config.precision)


def _measure_batch(
    restorer: Restorer, crops: NDArray[np.uint8], n: int, options: EngineBenchOptions, clock: Clock
) -> dict[str, Any]:
    batch = np.resize(crops, (n, *crops.shape[1:]))  # repeats them
    steps = options.config.steps
    device_clock = restorer.device_clock()
    for _ in range(3):  # a graph is recorded in the first
        restorer.correction(batch, steps)
    if device_clock is not None:
        device_clock.take_ms()
    samples, on_device = [], []
    for _ in range(max(10, options.runs // n)):
        start = clock()
        restorer.correction(batch, steps)
        samples.append((clock() - start) * 1000.0)
        if device_clock is not None and (ms := device_clock.take_ms()) is not None:
            on_device.append(ms)
    times = summarize_ms(samples)
    spread = float(np.subtract(*np.percentile(samples, [75, 25])))
    faces = 1000.0 * n / times["p50_ms"] if times["p50_ms"] else 0.0
    return {
        "batch": n,
        **times,
        "spread_ms": round(spread, 3),
        "faces_per_s": round(faces, 1),
        "device_ms": summarize_ms(on_device) if on_device else None,
    }


def streams(batches: list[dict[str, Any]]) -> int:
    """Streams of 30 frames per second with one face each that the engine alone can serve without falling behind.

    A batch gathers one frame of each stream, so it must also be done within a frame's interval; where no batch of
    several faces is, the streams take turns.
    """
    together = [b["batch"] for b in batches if b["p95_ms"] <= 1000.0 / STREAM_FPS]
    in_turns = max((b["faces_per_s"] for b in batches if b["p95_ms"] <= 1000.0 / STREAM_FPS), default=0.0)
    return max([math.floor(in_turns / STREAM_FPS), *together, 0]) if together else 0


def denoiser_flops(network: Mapping[str, Any], size: int) -> int:
    """Multiplications and additions of one evaluation of ``idm_rt.network.DenoiserNet`` on one face.

    Args:
        network: its configuration, as in a manifest.
        size: side of the crop in px.
    """
    channels, blocks, fold = network["channels"], network["blocks"], network["fold"]
    width, time_width = size // fold, network["embedding"]
    sides = [width // 2**level for level in range(len(channels))]
    pixels = [side * side for side in sides]
    macs = pixels[0] * 9 * (6 * fold**2 * channels[0] + channels[0] * 3 * fold**2)  # stem and head
    for level, c in enumerate(channels):
        uses = 1 if level == len(channels) - 1 else 2  # encoder, and decoder but for the coarsest
        macs += uses * blocks[level] * (2 * 9 * c * c * pixels[level] + time_width * c)
    for fine, coarse, p in zip(channels[:-1], channels[1:], pixels[1:], strict=True):
        macs += p * (4 * fine * coarse + coarse * 4 * fine)  # 2x2 down, 1x1 up before the pixel shuffle
    return 2 * (macs + time_width + time_width**2)


def _part_of_peak(restorer: Restorer, peaks: list[Peak], evaluations_per_s: float) -> dict[str, Any]:
    """The machine's peak, and how much of it the network's arithmetic reaches."""
    peak = max(peaks, key=lambda p: p.gflops)
    used = denoiser_flops(restorer.manifest.network, restorer.size) * evaluations_per_s / 1e9
    return {
        "gflops": peak.gflops,
        "copy_gb_s": max(p.copy_gb_s for p in peaks),
        "arithmetic": peak.arithmetic,
        "network_gflops": round(used, 1),
        "fraction": round(used / peak.gflops, 3) if peak.gflops else 0.0,
    }


def engine_lines(row: Mapping[str, Any]) -> Iterator[str]:
    """The row for people."""
    engine, peak = row["engine"], row["peak"]
    where = f"{row['device']['name']}, driver {row['device']['driver']}" if row["device"] else row["machine"]["cpu"]
    yield f"{row['model']['name']} on {engine['name']} ({engine['precision']} on {engine['device']}), {where}"
    yield f"{engine['precision']}: {engine['precision_reason']}"
    yield f"opened in {row['open_s']:.2f} s, first call {row['first_call_s']:.2f} s, {row['steps']} step(s)"
    covers = row["device_time_of"]
    head = f"{'faces':<8}{'p50 ms':>9}{'p95 ms':>9}{'p99 ms':>9}{'faces/s':>10}"
    yield head + (f"{'on the device, p50 ms':>24} ({covers})" if covers else "")
    for batch in row["batches"]:
        times = "".join(f"{batch[name]:9.2f}" for name in ("p50_ms", "p95_ms", "p99_ms"))
        device = f"{batch['device_ms']['p50_ms']:24.3f}" if batch["device_ms"] else ""
        yield f"{batch['batch']:<8}{times}{batch['faces_per_s']:10.1f}{device}"
    yield f"streams of {STREAM_FPS} fps that the engine alone keeps up with: {row['streams_30_fps']}"
    yield (
        f"{peak['network_gflops']:.0f} of {peak['gflops']:.0f} GFLOP/s ({peak['arithmetic']} matrix product): "
        f"{peak['fraction']:.0%}; copy {peak['copy_gb_s']:.0f} GB/s; memory peak {row['memory_peak_mb']:.0f} MB"
    )
