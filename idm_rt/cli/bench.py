"""``idm-rt bench``: how fast, and how much memory."""

from __future__ import annotations

import argparse
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from idm_rt import engine_bench, peer_bench
from idm_rt.bench import BenchOptions, run_benchmark, summary_lines
from idm_rt.cli.enhance import configure
from idm_rt.cli.output import Console
from idm_rt.engine_bench import EngineBenchOptions, measure_engine
from idm_rt.media.files import check_output
from idm_rt.peer_bench import PeerBenchOptions, measure_peers
from idm_rt.peers import check_installed
from idm_rt.report import write_json

_STDOUT = Path("-")


def run(options: argparse.Namespace, console: Console) -> int:
    """Measure, print, write; returns the exit code."""
    target: Path | None = options.json
    if target is not None and target != _STDOUT:
        check_output(target, source=options.clip, overwrite=options.overwrite)
    if options.peers:
        row = _measure_peers(options, console)
    elif options.network:
        row = _measure_engine(options, console)
    else:
        row = _measure_pipeline(options, console)
    if target == _STDOUT:
        console.json(row)
        return 0
    console.say("\n".join(_lines(row)))
    if target is not None:
        write_json(target, row)
    return 0


def _lines(row: dict[str, Any]) -> Iterable[str]:
    shown = {engine_bench.KIND: engine_bench.engine_lines, peer_bench.KIND: peer_bench.peer_lines}
    return shown.get(row.get("kind", ""), summary_lines)(row)


def _measure_engine(options: argparse.Namespace, console: Console) -> dict[str, Any]:
    bench = EngineBenchOptions(runs=options.frames, config=configure(options, temporal=True))
    return measure_engine(bench, progress=console.progress)


def _measure_peers(options: argparse.Namespace, console: Console) -> dict[str, Any]:
    check_installed()
    bench = PeerBenchOptions(runs=options.peer_runs, own_runs=options.frames, config=configure(options, temporal=True))
    return measure_peers(bench, progress=console.progress)


def _measure_pipeline(options: argparse.Namespace, console: Console) -> dict[str, Any]:
    bench = BenchOptions(
        clip=options.clip,
        size=options.size,
        frames=options.frames,
        warm_up=options.warm_up,
        faces=options.faces,
        config=configure(options, temporal=True),
    )
    return run_benchmark(bench, progress=console.progress)
