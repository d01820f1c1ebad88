"""The committed benchmark rows as Markdown, and put between the markers of a README."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from idm_rt.errors import ConfigError
from idm_rt.machine import cpu_name

# name of a table -> marker in the README; the first has to be there, the others are put below it when they have rows
MARKERS = {"pipeline": "benchmark", "engine": "benchmark engines", "peers": "benchmark peers"}
_PIPELINE_HEAD = (
    *("Machine", "Frame", "Faces", "Steps", "Engine", "Model", "p50 ms", "p95 ms", "fps"),
    *("Tracker ms", "Network ms", "Rest", "Peak MB", "Commit"),
)
_ENGINE_HEAD = (
    *("Machine", "Engine", "Model", "Steps", "1 face, p50 ms", "p95 ms", "p99 ms", "On the device, ms"),
    *("Faces/s", "at", "30 fps streams", "Of the peak", "Open s", "Peak MB", "Commit"),
)
_PEERS_HEAD = ("Machine", "Network", "Input px", "Parameters", "ms a face", "x ours", "x ours in torch", "Runs in")


def read_rows(folder: Path) -> dict[str, list[dict[str, Any]]]:
    """Rows of a folder by table, each list sorted by file name.

    Raises:
        ConfigError: no such folder, or a file in it that is no row.
    """
    if not folder.is_dir():
        raise ConfigError(f"{folder} is not a folder; expected one with the rows of `idm-rt bench --json`")
    rows: dict[str, list[dict[str, Any]]] = {name: [] for name in MARKERS}
    for path in sorted(folder.glob("*.json")):
        try:
            row = json.loads(path.read_text(encoding="utf-8"))
            rows[row.get("kind", "pipeline")].append(row)
        except (ValueError, AttributeError, KeyError) as error:
            raise ConfigError(f"{path} is not a row of `idm-rt bench --json` ({error!r}); measure it again") from error
    return rows


def tables(folder: Path) -> dict[str, str]:
    """Markdown by table; those without rows are left out."""
    rows = read_rows(folder)
    made = {
        "pipeline": (_PIPELINE_HEAD, map(pipeline_cells, rows["pipeline"])),
        "engine": (_ENGINE_HEAD, map(engine_cells, rows["engine"])),
        "peers": (_PEERS_HEAD, (cells for row in rows["peers"] for cells in peer_cells(row))),
    }
    return {name: _markdown(head, lines) for name, (head, lines) in made.items() if rows[name]}


def _markdown(head: Sequence[str], lines: Iterable[Sequence[str]]) -> str:
    return "\n".join(f"| {' | '.join(line)} |" for line in (head, ("---",) * len(head), *lines))


def _machine(row: dict[str, Any]) -> str:
    gpu = row.get("device")
    return str(gpu["name"]) if gpu else f"{cpu_name(row['machine'])}, {row['machine']['cores']} cores"


def _engine(row: dict[str, Any]) -> str:
    return f"{row['engine']['name']} {row['engine']['precision']}"


def _model(row: dict[str, Any]) -> str:
    return f"{row['model']['name']} {row['model']['version']}"


def pipeline_cells(row: dict[str, Any]) -> tuple[str, ...]:
    """Texts of a row of ``idm-rt bench``."""
    clip, stages = row["clip"], row["stages_ms"]
    return (
        *(_machine(row), f"{clip['width']}x{clip['height']}", f"{row['seen']['faces_per_frame']:g}"),
        *(str(row["steps"]), _engine(row), _model(row)),
        *(f"{row['frame_p50_ms']:.1f}", f"{row['frame_p95_ms']:.1f}", f"{row['fps']:.1f}"),
        *(f"{stages['track']['p50_ms']:.1f}", f"{stages['restore']['p50_ms']:.1f}"),
        *(f"{row['outside_networks_ratio']:.0%}", f"{row['memory']['rss_peak_mb']:.0f}", row["commit"] or "release"),
    )


def engine_cells(row: dict[str, Any]) -> tuple[str, ...]:
    """Texts of a row of ``idm-rt bench --network``."""
    one, best = row["batches"][0], max(row["batches"], key=lambda batch: batch["faces_per_s"])
    device = one.get("device_ms")
    return (
        *(_machine(row), _engine(row), _model(row), str(row["steps"])),
        *(f"{one['p50_ms']:.2f}", f"{one['p95_ms']:.2f}", f"{one['p99_ms']:.2f}"),
        f"{device['p50_ms']:.3f}" if device else "",
        *(f"{row['faces_per_s']:.0f}", f"batch {best['batch']}", str(row["streams_30_fps"])),
        *(f"{row['peak']['fraction']:.0%} of {row['peak']['arithmetic']}", f"{row['open_s']:.1f}"),
        *(f"{row['memory_peak_mb']:.0f}", row["commit"] or "release"),
    )


def peer_cells(row: dict[str, Any]) -> Iterable[tuple[str, ...]]:
    """Texts of a row of ``idm-rt bench --peers``: ours, then one line per network."""
    machine, ours, in_torch = _machine(row), row["ours"], row["ours_in_torch"]
    px = str(ours["input_px"])
    yield machine, _model(row), px, "", f"{ours['p50_ms']:.1f}", "1", "", _engine(row)
    if in_torch["error"] is None:
        yield machine, _model(row), px, "", f"{in_torch['p50_ms']:.1f}", "", "1", f"torch {in_torch['precision']}"
    for peer in row["peers"]:
        if peer["error"] is not None:
            yield machine, peer["name"], str(peer["input_px"]), "", "", "", "", f"not measured: {peer['error']}"
            continue
        million = f"{peer['parameters'] / 1e6:.1f} M" if peer["parameters"] else ""
        ratios = (f"{ratio:.0f}" if ratio else "" for ratio in (peer["ratio"], peer["ratio_same_runtime"]))
        runs_in = f"{peer['runtime']}, {peer['precision']}, {peer['weights']} weights"
        yield machine, peer["name"], str(peer["input_px"]), million, f"{peer['p50_ms']:.0f}", *ratios, runs_in


def render(text: str, folder: Path) -> str:
    """The text of a README with every table of the folder between its markers.

    Raises:
        ConfigError: the markers of the pipeline's table are not there.
    """
    after = ""
    for name, table in {name: tables(folder).get(name) for name in MARKERS}.items():
        start, end = f"<!-- {MARKERS[name]} -->", f"<!-- /{MARKERS[name]} -->"
        block = f"{start}\n{table}\n{end}" if table else f"{start}\n{end}"
        if start in text and end in text:
            before, rest = text.split(start, 1)
            text = before + block + rest.split(end, 1)[1]
        elif name == "pipeline":
            raise ConfigError(f"the README lacks {start} and {end}; put both where the table belongs")
        elif table:
            text = text.replace(after, f"{after}\n\n{block}", 1)
        else:
            continue
        after = end
    return text
