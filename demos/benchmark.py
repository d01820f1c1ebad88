"""Measure the standard rows of the benchmark, or show the committed ones as tables or as a picture.

    python demos/benchmark.py --out demos/benchmark_results              # measures; idle machine, about 20 minutes
    python demos/benchmark.py --out FOLDER --only engines --resume       # a part of them, those that are not there yet
    python demos/benchmark.py --table demos/benchmark_results            # Markdown
    python demos/benchmark.py --readme README.md                         # the same, between the markers of a file
    python demos/benchmark.py --plot demos/benchmark_results OUT.png     # latency against batch, fps against size

Each row is run in a process of its own by ``idm-rt bench``, so that memory and warm-up of one do not colour the next.
What this script does not know (``--model``, ``--threads``) goes to ``idm-rt bench``.
"""

from __future__ import annotations

import argparse
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

from benchmark_plot import plot
from benchmark_tables import render, tables

from idm_rt.backends import probe_engines
from idm_rt.backends.nvidia import first_gpu
from idm_rt.errors import IdmError
from idm_rt.machine import cpu_features, cpu_name, describe_machine
from idm_rt.media.files import replacing

RESULTS = Path(__file__).resolve().parent / "benchmark_results"
# name of the row, options of `idm-rt bench`
PIPELINE_ROWS = {
    "640x480_1face_1step": ["--size", "640x480"],
    "1280x720_1face_1step": ["--size", "1280x720"],
    "1920x1080_1face_1step": ["--size", "1920x1080"],
    "1280x720_2faces_1step": ["--size", "1280x720", "--faces", "2"],
    "640x480_1face_2steps": ["--size", "640x480", "--steps", "2"],
    "640x480_1face_4steps": ["--size", "640x480", "--steps", "4"],
}
PEERS_ROW = ["--peers", "--frames", "200"]
ENGINE_PRECISIONS = {
    "tensorrt": ("fp16",),
    "tensorrt-rtx": ("fp16",),
    "torch": ("fp16",),  # on the CPU it is the reference, not an engine
    "openvino": ("f32", "bf16", "int8"),
    "onnxruntime": ("f32",),
}
_BF16 = {"avx512_bf16", "amx_bf16", "bf16"}
PARTS = ("pipeline", "engines", "peers")


def engine_rows() -> Iterator[tuple[str, list[str]]]:
    """One row for each engine that can be used here, in each precision that this machine computes."""
    for engine in probe_engines():
        for precision in ENGINE_PRECISIONS[engine.name] if engine.available and engine.applicable else ():
            if precision != "bf16" or _BF16 & set(cpu_features()):
                options = ["--network", "--engine", engine.name, "--precision", precision, "--frames", "300"]
                yield f"engine_{engine.name}_{precision}", options


def wanted_rows(parts: list[str], frames: int) -> dict[str, list[str]]:
    """Options of `idm-rt bench` by the name of the row."""
    rows: dict[str, list[str]] = {}
    if "pipeline" in parts:
        rows |= {name: [*options, "--frames", str(frames)] for name, options in PIPELINE_ROWS.items()}
    if "engines" in parts:
        rows |= dict(engine_rows())
    if "peers" in parts:
        rows["peers"] = PEERS_ROW
    return rows


def measure(folder: Path, rows: dict[str, list[str]], more: list[str], resume: bool) -> int:
    """Write one JSON file per row; returns how many could not be measured (``idm-rt bench`` has said why)."""
    folder.mkdir(parents=True, exist_ok=True)
    failed = []
    for number, (name, options) in enumerate(rows.items(), 1):
        target = folder / f"{machine_slug()}_{name}.json"
        print(f"[{number}/{len(rows)}] {target.name}", flush=True)
        if resume and target.exists():
            continue
        command = [sys.executable, "-m", "idm_rt", "bench", *options, *more, "--json", str(target), "--overwrite"]
        if subprocess.run(command, check=False).returncode != 0:
            failed.append(name)
    if failed:
        print(f"not measured: {', '.join(failed)}", file=sys.stderr)
    return len(failed)


def machine_slug() -> str:
    """Short name of this processor and of its GPU, if there is one, fit for a file's name."""
    machine, gpu = describe_machine(), first_gpu()
    return "_".join([_slug(cpu_name(machine)), f"{machine['cores']}cores", *([_slug(gpu.name)] if gpu else [])])


def _slug(name: str) -> str:
    return re.sub(r"[^a-z0-9]+", "-", name.lower()).strip("-")


def table(folder: Path) -> str:
    """Markdown of every row in the folder, table by table."""
    return "\n\n".join(tables(folder).values())


def update_readme(path: Path, results: Path = RESULTS) -> None:
    """Put the tables between the markers of a file."""
    text = render(path.read_text(encoding="utf-8"), results)
    with replacing(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    what = parser.add_mutually_exclusive_group(required=True)
    what.add_argument("--out", type=Path, metavar="FOLDER", help="measure the rows and write them here")
    what.add_argument("--table", type=Path, metavar="FOLDER", help="print the rows that lie here")
    what.add_argument("--readme", type=Path, metavar="FILE", help="write the committed rows between its markers")
    what.add_argument("--plot", type=Path, nargs=2, metavar=("FOLDER", "OUT.png"), help="draw the rows that lie here")
    parser.add_argument("--only", nargs="+", choices=PARTS, default=PARTS, help="what to measure (default: all)")
    parser.add_argument("--resume", action="store_true", help="leave rows alone that are there")
    parser.add_argument("--frames", type=int, default=900, help="frames per row of the pipeline (default: %(default)s)")
    options, more = parser.parse_known_args()
    try:
        if options.table:
            print(table(options.table))
        elif options.readme:
            update_readme(options.readme)
        elif options.plot:
            plot(*options.plot)
        else:
            return min(1, measure(options.out, wanted_rows(options.only, options.frames), more, options.resume))
    except (IdmError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
