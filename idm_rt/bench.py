"""Measure the pipeline on a clip: time per stage, frames per second, memory. What ``idm-rt bench`` does."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from idm_rt.bench_frames import ClipFrames
from idm_rt.config import EnhancerConfig
from idm_rt.enhancer import Enhancer
from idm_rt.errors import ConfigError
from idm_rt.machine import describe_machine, describe_versions, git_commit, peak_resident_mb, resident_mb
from idm_rt.model_files import sha256_of
from idm_rt.report import describe_restorer, describe_tracker
from idm_rt.sample_clip import sample_clip
from idm_rt.timing import Clock, StageTimer

SCHEMA = 1
_NETWORKS = ("track", "restore")  # the two stages that run neural networks
_RSS_EVERY = 10  # frames between two readings of the memory
_SLOPE_SPAN = 200  # frames: over fewer, the slope shows the allocator's steps and nothing else

Progress = Callable[[Iterable[Any], int | None, str], Iterator[Any]]


@dataclass(frozen=True, slots=True)
class BenchOptions:
    """What to measure."""

    clip: Path | None = None  # None = the sample call
    size: tuple[int, int] | None = None  # (width, height) px of the frame; None = the clip's
    frames: int = 300  # measured
    warm_up: int = 30  # frames before them
    faces: int = 1  # the clip is shown so many times side by side
    config: EnhancerConfig = field(default_factory=EnhancerConfig)

    def __post_init__(self) -> None:
        if self.frames < 1 or self.warm_up < 0 or self.faces < 1:
            found = f"frames {self.frames}, warm_up {self.warm_up}, faces {self.faces}"
            raise ConfigError(f"{found}; expected frames and faces from 1 and warm_up from 0")


def run_benchmark(
    options: BenchOptions,
    *,
    clock: Clock = time.perf_counter,
    rss_mb: Callable[[], float] = resident_mb,
    open_enhancer: Callable[[EnhancerConfig, StageTimer], Enhancer] | None = None,
    progress: Progress | None = None,
) -> dict[str, Any]:
    """Run the pipeline over the clip, in a loop, and return one result row of plain values.

    Only ``Enhancer.process`` is timed: decoding and placing the clip on its canvas happen between the frames, as
    another program's work would.

    Args:
        clock: monotonic seconds; a test may turn its own.
        rss_mb: memory of this process in MB.
        open_enhancer: None = the real one.
        progress: see ``idm_rt.enhance_files``.

    Raises:
        MediaError: the clip cannot be read.
        ModelError, EngineError: see ``Enhancer``.
    """
    clip = options.clip or sample_clip()
    config = replace(options.config, max_faces=max(options.config.max_faces, options.faces), temporal=True)
    timer = StageTimer(clock)
    with (
        ClipFrames(clip, options.size, options.faces) as frames,
        (open_enhancer or _open)(config, timer) as enhancer,
    ):
        enhancer.warm_up()
        count = options.warm_up + options.frames
        numbered = enumerate(frames.take(count))
        memory: list[tuple[int, float]] = []
        for index, image in progress(numbered, count, "frames") if progress else numbered:
            if index == options.warm_up:
                timer.reset()
                before = replace(enhancer.counts, bypassed=dict(enhancer.counts.bypassed))
            enhancer.process(image, index * frames.interval_ms)
            if index >= options.warm_up and index % _RSS_EVERY == 0:
                memory.append((index, rss_mb()))
        return {
            "schema": SCHEMA,
            "clip": _describe_clip(clip, frames, options),
            "steps": config.steps,
            "strength": config.strength,
            "threads": config.threads,
            **describe_restorer(enhancer.restorer),
            **describe_tracker(enhancer.tracker),
            "seen": _counted(enhancer.counts, before),
            **summarize_times(timer),
            "memory": summarize_memory(memory),
            "machine": describe_machine(),
            "versions": describe_versions(),
            "commit": git_commit(),
        }


def summarize_times(timer: StageTimer) -> dict[str, Any]:
    """Percentiles per stage, frames per second of work, and the part of it outside the networks."""
    stages = timer.summary()
    total = sum(timer.samples_ms("frame"))
    networks = sum(sum(timer.samples_ms(name)) for name in _NETWORKS)
    return {
        "stages_ms": stages,
        "frame_p50_ms": stages["frame"]["p50_ms"] if total else 0.0,
        "frame_p95_ms": stages["frame"]["p95_ms"] if total else 0.0,
        "fps": round(1000.0 * stages["frame"]["count"] / total, 2) if total else 0.0,
        # all stages but tracker and network, as a part of the whole, by total time
        "outside_networks_ratio": round((total - networks) / total, 4) if total else 0.0,
    }


def summarize_memory(readings: list[tuple[int, float]]) -> dict[str, float | None]:
    """Peak and slope of the memory.

    Args:
        readings: (frame index, RSS in MB), in order.

    Returns:
        ``rss_slope_mb_per_1000_frames`` is the least-squares slope over the second half, when the allocator has
        settled; None when that is less than 200 frames.
    """
    half = readings[len(readings) // 2 :]
    slope = None
    if half and half[-1][0] - half[0][0] >= _SLOPE_SPAN:
        index, rss = np.array(half).T
        slope = round(float(np.polyfit(index, rss, 1)[0]) * 1000.0, 3)
    peak = max([peak_resident_mb(), *(rss for _, rss in readings)])
    return {"rss_peak_mb": round(peak, 1), "rss_slope_mb_per_1000_frames": slope}


def summary_lines(row: Mapping[str, Any]) -> list[str]:
    """The row for people, stage by stage."""
    clip, engine = row["clip"], row["engine"]
    lines = [
        f"{clip['name']} at {clip['width']}x{clip['height']}, {row['seen']['faces_per_frame']:g} face(s) per frame, "
        f"{row['steps']} step(s), {row['model']['name']} on {engine['name']} ({engine['precision']})",
        f"{row['machine']['cpu']}, {row['machine']['cores']} cores",
        f"{'stage':<12}{'p50 ms':>9}{'p95 ms':>9}{'mean ms':>9}",
    ]
    for name, stage in row["stages_ms"].items():
        lines.append(f"{name:<12}{stage['p50_ms']:9.2f}{stage['p95_ms']:9.2f}{stage['mean_ms']:9.2f}")
    outside = row["outside_networks_ratio"]
    lines.append(f"{row['fps']:.1f} frames per second; {outside:.0%} of the time is spent outside tracker and network")
    lines.append(_memory_line(row["memory"]))
    if row["seen"]["bypassed"]:
        lines.append(f"careful: {row['seen']['bypassed']} frames were bypassed because of a fault")
    return lines


def _memory_line(memory: Mapping[str, float | None]) -> str:
    slope = memory["rss_slope_mb_per_1000_frames"]
    growth = f"slope {slope:+.2f} MB per 1000 frames" if slope is not None else "too few frames for a slope"
    return f"memory: peak {memory['rss_peak_mb']:.0f} MB, {growth}"


def _open(config: EnhancerConfig, timer: StageTimer) -> Enhancer:
    return Enhancer(config, timer=timer)


def _describe_clip(path: Path, frames: ClipFrames, options: BenchOptions) -> dict[str, Any]:
    width, height = frames.size
    return {
        "name": path.name,
        "sha256": sha256_of(path),
        "width": width,
        "height": height,
        "copies": options.faces,
        "scale": round(frames.scale, 4),
        "frames": options.frames,
        "warm_up": options.warm_up,
    }


def _counted(after: Any, before: Any) -> dict[str, Any]:
    """What the measured frames held."""
    frames = after.frames - before.frames
    return {
        "frames": frames,
        "frames_with_faces": after.frames_with_faces - before.frames_with_faces,
        "faces_per_frame": round((after.faces - before.faces) / frames, 3) if frames else 0.0,
        "restored": after.restored - before.restored,
        "bypassed": sum(after.bypassed.values()) - sum(before.bypassed.values()),
    }
