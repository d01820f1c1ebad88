"""The tables of an evaluation on video."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from export.tables import Table

PER_FRAME, PIPELINE = "per frame", "pipeline"


def mean_figures(clips: Sequence[dict[str, Any]]) -> dict[str, dict[str, float]]:
    """Each figure's mean over clips; one that a clip lacks is left out there."""
    out: dict[str, dict[str, float]] = {}
    for name in clips[0]["videos"]:
        rows = [clip["videos"][name] for clip in clips]
        keys = [key for key in rows[0] if any(row[key] is not None for row in rows)]
        out[name] = {key: float(np.mean([row[key] for row in rows if row[key] is not None])) for key in keys}
    return out


COLUMNS: tuple[tuple[str, str, Callable[[float], str]], ...] = (
    ("warping_error", "warping error over truth's", "{:+.3f}".format),
    ("still_flicker", "flicker of a still", "{:.3f}".format),
    ("landmark_jitter", "landmark jitter, % of eyes", "{:.2f}".format),
    ("identity_std", "identity std", "{:.3f}".format),
    ("identity", "identity to truth", "{:.3f}".format),
    ("psnr_db", "face PSNR, dB", "{:.2f}".format),
    ("psnr_changed_db", "PSNR where it changed, dB", "{:.2f}".format),
    ("vgg_hed", "vgg-hed", "{:.3f}".format),
)


def video_table(caption: str, videos: dict[str, dict[str, float]]) -> Table:
    """One row per video; the warping error is given less the truth's own."""
    shown = [column for column in COLUMNS if videos["input"].get(column[0]) is not None]
    base = {"warping_error": videos["truth"]["warping_error"]}
    rows = []
    for name, figures in videos.items():
        cells = [("" if figures.get(k) is None else text(figures[k] - base.get(k, 0.0))) for k, _, text in shown]
        rows.append([name, *cells])
    return Table(caption, ["", *(label for _, label, _ in shown)], rows)


def gains(mean: dict[str, dict[str, float]]) -> Table:
    """What the pipeline's smoothing changes: its figures as a share of per-frame restoration's and of the input's."""
    base = {key: mean["truth"][key] if key == "warping_error" else 0.0 for key in ("warping_error", "still_flicker")}
    own = {key: mean[PIPELINE][key] - less for key, less in base.items()}
    rows = []
    for name in (PER_FRAME, "input"):
        others = {key: mean[name][key] - less for key, less in base.items()}
        rows.append([name, *(f"{own[k] / v - 1.0:+.0%}" if v > 0 else "" for k, v in others.items())])
    return Table("The pipeline against:", ["", "warping error over truth's", "flicker of a still"], rows)


def video_tables(report: dict[str, Any]) -> list[Table]:
    """The means, then each clip."""
    how = f"{report['codec']} at {report['kbps']:.0f} kb/s, {report['height']} lines, {report['steps']} step(s)"
    tables = [video_table(f"Mean of {len(report['clips'])} clips, {how}:", report["mean"])]
    tables.append(gains(report["mean"]))
    return tables + [video_table(f"{n}, {c['frames']} frames:", c["videos"]) for n, c in report["clips"].items()]
