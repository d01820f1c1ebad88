"""``idm-rt bench``: how fast, and how much memory."""

from __future__ import annotations

import argparse
from pathlib import Path

from idm_rt.bench import BenchOptions, run_benchmark, summary_lines
from idm_rt.cli.enhance import configure
from idm_rt.cli.output import Console
from idm_rt.media.files import check_output
from idm_rt.report import write_json

_STDOUT = Path("-")


def run(options: argparse.Namespace, console: Console) -> int:
    """Measure, print, write; returns the exit code."""
    target: Path | None = options.json
    if target is not None and target != _STDOUT:
        check_output(target, source=options.clip, overwrite=options.overwrite)
    bench = BenchOptions(
        clip=options.clip,
        size=options.size,
        frames=options.frames,
        warm_up=options.warm_up,
        faces=options.faces,
        config=configure(options, temporal=True),
    )
    row = run_benchmark(bench, progress=console.progress)
    if target == _STDOUT:
        console.json(row)
        return 0
    console.say("\n".join(summary_lines(row)))
    if target is not None:
        write_json(target, row)
    return 0
