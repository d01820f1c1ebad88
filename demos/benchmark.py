"""Measure the standard rows of the benchmark, or print the committed ones as a table.

    python demos/benchmark.py --out demos/benchmark_results          # measures, some minutes on an idle machine
    python demos/benchmark.py --table demos/benchmark_results        # Markdown

Each row is run in a process of its own by ``idm-rt bench``, so that memory and warm-up of one do not colour the next.
"""

from __future__ import annotations

import argparse
import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

from idm_rt.machine import describe_machine

# name of the row, options of `idm-rt bench`
ROWS = {
    "640x480_1face_1step": ["--size", "640x480"],
    "1280x720_1face_1step": ["--size", "1280x720"],
    "1280x720_2faces_1step": ["--size", "1280x720", "--faces", "2"],
    "640x480_1face_2steps": ["--size", "640x480", "--steps", "2"],
    "640x480_1face_4steps": ["--size", "640x480", "--steps", "4"],
}
_HEAD = (
    *("Machine", "Frame", "Faces", "Steps", "Engine", "Model", "p50 ms", "p95 ms", "fps"),
    *("Tracker ms", "Network ms", "Rest", "Peak MB", "Commit"),
)


def measure(folder: Path, frames: int, more: list[str]) -> None:
    """Write one JSON file per row; ends with the first row that fails."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, options in ROWS.items():
        target = folder / f"{machine_slug()}_{name}.json"
        command = [sys.executable, "-m", "idm_rt", "bench", "--frames", str(frames), *options, *more]
        subprocess.run([*command, "--json", str(target), "--overwrite"], check=True)


def machine_slug() -> str:
    """Short name of this processor, fit for a file's name."""
    machine = describe_machine()
    cpu = re.sub(r"[^a-z0-9]+", "-", f"{machine['cpu']}".lower()).strip("-")
    return f"{cpu}_{machine['cores']}cores"


def table(folder: Path) -> str:
    """Markdown of every row in the folder, sorted by file name."""
    rows = [json.loads(path.read_text(encoding="utf-8")) for path in sorted(folder.glob("*.json"))]
    lines = [_HEAD, ("---",) * len(_HEAD), *(cells(row) for row in rows)]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def cells(row: dict[str, Any]) -> tuple[str, ...]:
    """One row's texts, in the order of the head."""
    clip, engine, stages = row["clip"], row["engine"], row["stages_ms"]
    return (
        f"{row['machine']['cpu']}, {row['machine']['cores']} cores",
        f"{clip['width']}x{clip['height']}",
        f"{row['seen']['faces_per_frame']:g}",
        str(row["steps"]),
        f"{engine['name']} {engine['precision']}",
        f"{row['model']['name']} {row['model']['version']}",
        f"{row['frame_p50_ms']:.1f}",
        f"{row['frame_p95_ms']:.1f}",
        f"{row['fps']:.1f}",
        f"{stages['track']['p50_ms']:.1f}",
        f"{stages['restore']['p50_ms']:.1f}",
        f"{row['outside_networks_ratio']:.0%}",
        f"{row['memory']['rss_peak_mb']:.0f}",
        row["commit"] or "release",
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    what = parser.add_mutually_exclusive_group(required=True)
    what.add_argument("--out", type=Path, metavar="FOLDER", help="measure every row and write it here")
    what.add_argument("--table", type=Path, metavar="FOLDER", help="print the rows that lie here")
    parser.add_argument("--frames", type=int, default=900, help="measured frames per row (default: %(default)s)")
    options, more = parser.parse_known_args()
    if options.table:
        print(table(options.table))
    else:
        measure(options.out, options.frames, more)


if __name__ == "__main__":
    main()
