"""Measure a model on held-out people: ``python -m export.evaluate FACES WEIGHTS OUT [--model NAME]``.

FACES is made by ``export.prepare``; WEIGHTS is the folder with the measuring networks (VGG16-HED as
vgg16_hed_fp16.safetensors, dlib's two files, MobileNetV2, BRISQUE). Writes OUT/evaluation.json, OUT/evaluation.md, a
sheet of faces per level and OUT/evaluation.html, which holds all of it in one file.
"""

from __future__ import annotations

import argparse
import logging
from collections import defaultdict
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from tqdm import tqdm

from export.baselines import BASELINES, Contestant, model_contestants, open_baselines, open_compared
from export.dataset import FaceSet, evaluation_pairs, load_faces, spread_faces
from export.degradation_sheets import labelled, png
from export.degradations import LEVELS, crop_matrix
from export.evaluation_tables import evaluation_tables, markdown, title
from export.measures import Measured, Measures, mean_of, open_measures, summary
from export.metrics import psnr
from export.runs import run_command, write_atomic, write_json
from export.tables import Picture, html_page
from idm_rt.geometry import crop_face
from idm_rt.restorer import Restorer, open_restorer
from idm_rt.types import RgbImage

log = logging.getLogger(__name__)

DEFAULT_LEVELS = ("call-mild", "call-medium", "call-hard")
SHEET_FACES = 10


@dataclass(frozen=True, slots=True)
class EvaluationOptions:
    """What is measured."""

    model: str | None = None
    engine: str = "auto"
    levels: tuple[str, ...] = DEFAULT_LEVELS
    limit: int | None = None  # faces, spread over all sources
    baselines: tuple[str, ...] = ("bicubic", "opencv")
    baseline_limit: int = 10  # faces on which the slow baselines run
    compare: tuple[str, ...] = ()  # NAME=PATH, see export.baselines.open_compared


def evaluate_level(
    contestants: list[Contestant], faces: FaceSet, level: str, measures: Measures, few: int, sheet: Path
) -> dict[str, Any]:
    """Mean measures per contestant on one fixed set, overall and per source; slow ones on ``few`` faces only."""
    count = len(faces.records)
    chosen = set(np.linspace(0, count - 1, min(few, count)).astype(int).tolist())
    on_sheet = set(np.linspace(0, count - 1, min(SHEET_FACES, count)).astype(int).tolist())
    rows: list[dict[str, Measured]] = []
    pictures: list[dict[str, RgbImage]] = []
    for index, (_, pair) in enumerate(tqdm(evaluation_pairs(faces, level), total=count, desc=level, disable=None)):
        running = [c for c in contestants if not c.slow or index in chosen]
        results = {"input": pair.degraded, **{c.name: c.restore(pair.degraded) for c in running}}
        rows.append(measures.of_all(results, pair.clean))
        if index in on_sheet:
            pictures.append({**results, "truth": pair.clean})
    write_sheet(sheet, pictures)
    return level_report(rows, [record.source for record in faces.records], chosen, any(c.slow for c in contestants))


def level_report(rows: list[dict[str, Measured]], sources: list[str], chosen: set[int], slow: bool) -> dict[str, Any]:
    """The figures of one level, ready for JSON."""
    means, truth = summary(rows)
    by_source: dict[str, list[dict[str, Measured]]] = defaultdict(list)
    for source, row in sorted(zip(sources, rows, strict=True), key=lambda pair: pair[0]):
        by_source[source].append({name: measured for name, measured in row.items() if name in means or name == "truth"})
    report: dict[str, Any] = {
        "faces": len(rows),
        "mean": means,
        "truth": truth,
        "per_source": {source: source_means(picked) for source, picked in by_source.items()},
        "faces_per_source": {source: len(picked) for source, picked in by_source.items()},
    }
    if slow:
        few_means, few_truth = summary([rows[index] for index in sorted(chosen)])
        report["few"] = {"faces": len(chosen), "mean": few_means, "truth": few_truth}
    return report


def source_means(rows: list[dict[str, Measured]]) -> dict[str, dict[str, float]]:
    """Means over the faces of one source; too few for a distance between sets."""
    return {name: mean_of([row[name].figures for row in rows]) for name in rows[0] if name != "truth"}


def authenticity(restorer: Restorer, faces: FaceSet, measures: Measures) -> dict[str, dict[str, float]]:
    """What the model does to good faces: PSNR(f(x), x), identity, and PSNR(f(f(x)), f(x)), per number of steps."""
    rows: dict[str, list[dict[str, float]]] = defaultdict(list)
    for canvas in tqdm(faces.canvases, desc="clean faces", disable=None):
        x = crop_face(canvas.numpy(), crop_matrix(canvas.shape[0], None))
        embedding = measures.identity.embed(x)
        for steps in restorer.manifest.steps:
            once = restorer.restore(x[None], steps)
            twice = restorer.restore(once, steps)[0]
            identity = float(np.linalg.norm(measures.identity.embed(once[0]) - embedding))
            figures = {"psnr_db": psnr(once[0], x), "identity": identity, "psnr_again_db": psnr(twice, once[0])}
            rows[f"steps {steps}"].append(figures)
    return {name: mean_of(values) for name, values in rows.items()}


def write_sheet(path: Path, rows: list[dict[str, RgbImage]]) -> None:
    """A PNG with one row per face: input, baselines, ours, truth; a contestant that did not run leaves a gap."""
    names = max((list(row) for row in rows), key=len)
    blank = np.zeros_like(next(iter(rows[0].values())))
    lines = [[labelled(row[name], name) if name in row else blank for name in names] for row in rows]
    write_atomic(path, png(np.vstack([np.hstack(line) for line in lines])))


def write_reports(out: Path, report: dict[str, Any], sheets: dict[str, Path]) -> None:
    """evaluation.json, .md and .html."""
    write_json(out / "evaluation.json", report)
    write_atomic(out / "evaluation.md", markdown(report).encode())
    pictures = [Picture(f"{level}: input, baselines, ours, truth", path.read_bytes()) for level, path in sheets.items()]
    page = html_page("Evaluation", [title(report), *evaluation_tables(report), "Faces", *pictures])
    write_atomic(out / "evaluation.html", page)


def evaluate(faces: Path, weights: Path, out: Path, options: EvaluationOptions) -> dict[str, Any]:
    """Measure one model; see the module's text."""
    measures = open_measures(weights)
    val = load_faces(faces, "val")
    val = spread_faces(val, options.limit) if options.limit else val
    baselines = open_baselines(list(options.baselines))
    sheets = {level: out / f"sheet-{level}.png" for level in options.levels}
    with (
        open_restorer(options.model, options.engine) as restorer,
        open_compared(list(options.compare), options.engine) as compared,
    ):
        name, few = restorer.manifest.name, options.baseline_limit
        contestants = [*baselines, *compared, *model_contestants(restorer, name)]
        levels = {n: evaluate_level(contestants, val, n, measures, few, sheet) for n, sheet in sheets.items()}
        report = {
            "model": name,
            "version": restorer.manifest.version,
            "engine": f"{restorer.engine} {restorer.precision}",
            "onnx_sha256": restorer.manifest.files["onnx"].sha256,
            "levels": levels,
            "clean": authenticity(restorer, val, measures),
        }
    write_reports(out, report, sheets)
    log.info("%s", markdown(report))
    return report


def main(argv: list[str] | None = None) -> int:
    """Command line; returns the exit status."""
    parser = argparse.ArgumentParser(prog="python -m export.evaluate", description=__doc__)
    parser.add_argument("faces", type=Path)
    parser.add_argument("weights", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("--model", help="name or folder (default: the shipped model)")
    parser.add_argument("--engine", default="auto")
    parser.add_argument("--limit", type=int, help="only so many faces, spread over all sources")
    parser.add_argument("--levels", nargs="+", choices=sorted(LEVELS), default=list(DEFAULT_LEVELS))
    default = EvaluationOptions()
    parser.add_argument("--baselines", nargs="*", choices=BASELINES, default=list(default.baselines))
    parser.add_argument(
        "--baseline-limit", type=int, default=default.baseline_limit, help="faces for baselines of seconds per face"
    )
    parser.add_argument(
        "--compare", action="append", default=[], metavar="NAME=PATH",
        help="another network: model folder, run directory or checkpoint.pt (may be repeated)",
    )  # fmt: skip
    parser.add_argument("--threads", type=int, help="torch threads (default: all cores; 1 on a busy machine)")
    args = parser.parse_args(argv)
    if args.threads:
        torch.set_num_threads(args.threads)
    options = EvaluationOptions(
        args.model, args.engine, tuple(args.levels), args.limit, tuple(args.baselines), args.baseline_limit,
        tuple(args.compare),
    )  # fmt: skip
    return run_command(lambda: evaluate(args.faces, args.weights, args.out, options))


if __name__ == "__main__":
    raise SystemExit(main())
