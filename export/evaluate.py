"""Measure a model on held-out people: ``python -m export.evaluate FACES WEIGHTS OUT [--model NAME]``.

FACES is made by ``export.prepare``; WEIGHTS is the folder with the measuring networks (VGG16-HED as
vgg16_hed_fp16.safetensors, dlib's two files, MobileNetV2, BRISQUE). Writes OUT/evaluation.json, OUT/evaluation.md, a
sheet of faces per level and OUT/evaluation.html, which holds all of it in one file. Killed, the same command goes on
where it was; more levels, baselines or networks to compare with may be added to a finished one.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import logging
from collections.abc import Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import torch

from export.baselines import (
    BASELINES,
    Contestant,
    model_contestants,
    model_version,
    open_baselines,
    open_compared,
    open_regressor,
)
from export.dataset import FaceSet, load_faces, spread_faces
from export.degradation_sheets import png
from export.degradations import LEVELS
from export.evaluate_faces import authenticity, evaluate_level
from export.evaluation_tables import evaluation_tables, markdown, title
from export.face_results import FaceResults
from export.learned_measures import LEARNED
from export.measures import Measures, open_measures, weights_version
from export.runs import run_command, write_atomic, write_json
from export.tables import Picture, html_page
from idm_rt.model_files import sha256_of
from idm_rt.restorer import Restorer, open_restorer

log = logging.getLogger(__name__)

DEFAULT_LEVELS = ("call-mild", "call-medium", "call-hard")


@dataclass(frozen=True, slots=True)
class EvaluationOptions:
    """What is measured."""

    model: str | None = None
    engine: str = "auto"
    levels: tuple[str, ...] = DEFAULT_LEVELS
    limit: int | None = None  # faces, spread over all sources
    baselines: tuple[str, ...] = ("bicubic", "opencv")
    baseline_limit: int = 10  # faces on which the slow baselines run
    regressor: Path | None = None  # see export.baselines.open_regressor
    compare: tuple[str, ...] = ()  # NAME=PATH, see export.baselines.open_compared
    learned: tuple[str, ...] = ()  # of export.learned_measures.LEARNED


def write_reports(out: Path, report: dict[str, Any]) -> None:
    """evaluation.json, .md and .html."""
    write_json(out / "evaluation.json", report)
    write_atomic(out / "evaluation.md", markdown(report).encode())
    sheets = {level: out / f"sheet-{level}.png" for level in report["levels"]}
    pictures = [Picture(f"{level}: input, baselines, ours, truth", path.read_bytes()) for level, path in sheets.items()]
    page = html_page("Evaluation", [title(report), *evaluation_tables(report), "Faces", *pictures])
    write_atomic(out / "evaluation.html", page)
    log.info("%s", markdown(report))


def evaluate(faces: Path, weights: Path, out: Path, options: EvaluationOptions, dry_run: bool = False) -> None:
    """Measure one model, or say what would be measured; see the module's text."""
    measures = open_measures(weights, options.learned)
    val = load_faces(faces, "val")
    val = spread_faces(val, options.limit) if options.limit else val
    baselines = [*open_baselines(list(options.baselines)), *open_regressor(options.regressor)]
    with (
        open_restorer(options.model, options.engine) as restorer,
        open_compared(list(options.compare), options.engine) as compared,
    ):
        contestants = [*baselines, *compared, *model_contestants(restorer, restorer.manifest.name)]
        settings = settings_of(faces, weights, restorer, measures, options)
        if dry_run:
            names = [contestant.name for contestant in contestants]
            plan = {"faces": len(val.records), "levels": options.levels, "contestants": names}
            print(json.dumps({**plan, "absent": measures.absent, "settings": settings}, indent=2))
            return
        with FaceResults(out, settings) as results:
            report = measure(contestants, val, restorer, measures, options, results, out)
    write_reports(out, report)


def settings_of(
    faces: Path, weights: Path, restorer: Restorer, measures: Measures, options: EvaluationOptions
) -> dict[str, Any]:
    """What every kept figure depends on; results of other settings are not mixed with these."""
    return {
        "model": model_version(restorer),
        "faces": sha256_of(faces / "faces.jsonl"),
        "weights": weights_version(weights),
        "degradations": hashlib.sha256(repr([LEVELS[level] for level in sorted(LEVELS)]).encode()).hexdigest(),
        "measures": measures.names,
    }


def measure(
    contestants: Sequence[Contestant], faces: FaceSet, restorer: Restorer, measures: Measures,
    options: EvaluationOptions, results: FaceResults, out: Path,
) -> dict[str, Any]:  # fmt: skip
    """The report, ready for JSON; writes the sheets."""
    levels = {}
    for level in options.levels:
        levels[level], picture = evaluate_level(contestants, faces, level, measures, options.baseline_limit, results)
        write_atomic(out / f"sheet-{level}.png", png(picture))
    return {
        "model": restorer.manifest.name,
        "version": restorer.manifest.version,
        "engine": f"{restorer.engine} {restorer.precision}",
        "onnx_sha256": restorer.manifest.files["onnx"].sha256,
        "absent": measures.absent,
        "levels": levels,
        "clean": authenticity(restorer, faces, measures, results),
    }


def main(argv: list[str] | None = None) -> int:
    """Command line; returns the exit status."""
    default = EvaluationOptions()
    parser = argparse.ArgumentParser(prog="python -m export.evaluate", description=__doc__)
    parser.add_argument("faces", type=Path)
    parser.add_argument("weights", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("--model", help="name or folder (default: the shipped model)")
    parser.add_argument("--engine", default=default.engine)
    parser.add_argument("--limit", type=int, help="only so many faces, spread over all sources")
    parser.add_argument("--levels", nargs="+", choices=sorted(LEVELS), default=list(default.levels))
    parser.add_argument("--baselines", nargs="*", choices=BASELINES, default=list(default.baselines))
    parser.add_argument(
        "--baseline-limit", type=int, default=default.baseline_limit, help="faces for baselines of seconds per face"
    )
    parser.add_argument("--regressor", type=Path, metavar="RUN", help="run or model folder of distill --plain true")
    parser.add_argument(
        "--compare", action="append", default=[], metavar="NAME=PATH",
        help="another network: model folder, run directory or checkpoint.pt (may be repeated)",
    )  # fmt: skip
    parser.add_argument("--learned", nargs="+", choices=sorted(LEARNED), default=[], help="left out where they fail")
    parser.add_argument("--threads", type=int, help="torch threads (default: all cores; 1 on a busy machine)")
    parser.add_argument("--dry-run", action="store_true", help="say what would be measured and stop")
    args = parser.parse_args(argv)
    if args.threads:
        torch.set_num_threads(args.threads)
    given: dict[str, Any] = {f.name: getattr(args, f.name) for f in fields(EvaluationOptions)}
    given |= {name: tuple(value) for name, value in given.items() if isinstance(value, list)}
    options = EvaluationOptions(**given)
    return run_command(lambda: evaluate(args.faces, args.weights, args.out, options, args.dry_run))


if __name__ == "__main__":
    raise SystemExit(main())
