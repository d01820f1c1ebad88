"""The committed benchmark rows as a picture: an engine's latency against batch, the pipeline's rate against size."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from benchmark_tables import read_rows

from idm_rt.errors import ConfigError
from idm_rt.machine import cpu_name
from idm_rt.media.files import replacing

_CALL_FPS = 30


def plot(folder: Path, target: Path) -> None:
    """Write a PNG.

    Raises:
        ConfigError: no rows to show, or matplotlib is missing.
    """
    rows = read_rows(folder)
    pipeline = [row for row in rows["pipeline"] if row["clip"]["copies"] == 1]
    if not rows["engine"] and not pipeline:
        raise ConfigError(f"{folder} holds no rows; measure some with --out")
    try:
        from matplotlib.backends.backend_agg import FigureCanvasAgg
        from matplotlib.figure import Figure
    except ImportError as error:
        raise ConfigError(f"matplotlib cannot be imported ({error}); pip install matplotlib") from error
    figure = Figure(figsize=(11.0, 6.4), layout="constrained")
    FigureCanvasAgg(figure)
    latency, rate = figure.subplots(1, 2)
    _draw_latency(latency, rows["engine"])
    _draw_rate(rate, pipeline)
    target.parent.mkdir(parents=True, exist_ok=True)
    with replacing(target) as temporary:
        figure.savefig(temporary, format="png", dpi=110)


def _label(row: dict[str, Any], more: str = "") -> str:
    where = row["device"]["name"] if row.get("device") else cpu_name(row["machine"])
    return f"{where}: {row['engine']['name']} {row['engine']['precision']}, {row['model']['version']}{more}"


def _draw_latency(axes: Any, rows: Sequence[dict[str, Any]]) -> None:
    for row in rows:
        sizes = [batch["batch"] for batch in row["batches"]]
        (line,) = axes.plot(sizes, [b["p50_ms"] for b in row["batches"]], marker="o", label=_label(row))
        axes.fill_between(
            sizes,
            [batch["p50_ms"] for batch in row["batches"]],
            [batch["p95_ms"] for batch in row["batches"]],
            color=line.get_color(),
            alpha=0.15,
        )
    axes.axhline(1000 / _CALL_FPS, color="grey", linestyle=":", label=f"a frame at {_CALL_FPS} fps")
    axes.set(title="Engine alone: p50, shaded to p95", xlabel="faces per call", ylabel="ms per call")
    axes.set_xscale("log", base=2)
    axes.set_yscale("log")
    shown = sorted({batch["batch"] for row in rows for batch in row["batches"]})
    axes.set_xticks(shown, [str(size) for size in shown])
    _finish(axes)


def _draw_rate(axes: Any, rows: Sequence[dict[str, Any]]) -> None:
    lines: dict[str, dict[tuple[int, int], float]] = defaultdict(dict)
    for row in rows:
        size = row["clip"]["width"], row["clip"]["height"]
        lines[_label(row, f", {row['steps']} step(s)")][size] = row["fps"]
    sizes = sorted({size for line in lines.values() for size in line}, key=lambda size: size[0] * size[1])
    for label, line in lines.items():
        places = [index for index, size in enumerate(sizes) if size in line]
        axes.plot(places, [line[sizes[index]] for index in places], marker="o", label=label)
    axes.axhline(_CALL_FPS, color="grey", linestyle=":", label=f"{_CALL_FPS} fps")
    axes.set(title="Whole pipeline, one face", xlabel="frame, px", ylabel="frames per second", ylim=(0, None))
    axes.set_xticks(range(len(sizes)), [f"{width}x{height}" for width, height in sizes])
    _finish(axes)


def _finish(axes: Any) -> None:
    axes.grid(alpha=0.3)
    axes.legend(fontsize=7, loc="upper center", bbox_to_anchor=(0.5, -0.13))  # below: with many machines it hides lines
