"""Curves of a training run as a picture."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from export.runs import moved_into_place

_COLUMNS = 4


def plot_stats(rows: Sequence[dict[str, Any]], path: Path) -> None:
    """A PNG with one curve per logged figure over the samples seen; nothing is written before the second row."""
    if len(rows) < 2:
        return
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    names = [name for name in rows[-1] if name != "seen"]
    lines = -(-len(names) // _COLUMNS)
    figure = Figure(figsize=(4.0 * _COLUMNS, 2.6 * lines), layout="constrained")
    FigureCanvasAgg(figure)
    for index, name in enumerate(names):
        axes = figure.add_subplot(lines, _COLUMNS, index + 1)
        points = [(row["seen"], row[name]) for row in rows if name in row]
        axes.plot(*zip(*points, strict=True), marker=".")
        axes.set_title(name, fontsize=9)
        axes.grid(alpha=0.3)
    with moved_into_place(path) as temporary:
        figure.savefig(temporary, format="png", dpi=80)
