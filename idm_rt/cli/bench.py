"""``idm-rt bench``: how fast, and how much memory."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from idm_rt.bench import BenchOptions, run_benchmark, summary_lines
from idm_rt.cli.enhance import configure
from idm_rt.cli.output import Console
from idm_rt.engine_bench import EngineBenchOptions, engine_lines, measure_engine
from idm_rt.media.files import check_output
from idm_rt.report import write_json

_STDOUT = Path("-")


def run(options: argparse.Namespace, console: Console) -> int:
    """Measure, print, write; returns the exit code."""
    target: Path | None = options.json
    if target is not None and target != _STDOUT:
        check_output(target, source=options.clip, overwrite=options.overwrite)
    row = _measure_engine(options) if options.network else _measure_pipeline(options, console)
    if target == _STDOUT:
        console.json(row)
        return 0
    console.say("\n".join(engine_lines(row) if options.network else summary_lines(row)))
    if target is not None:
        write_json(target, row)
    return 0


def _measure_engine(options: argparse.Namespace) -> dict[str, Any]:
    return measure_engine(EngineBenchOptions(runs=options.frames, config=configure(options, temporal=True)))


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
