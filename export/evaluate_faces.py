"""Measure faces one by one, each result kept at once: what ``export.evaluate`` does on one fixed set."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from typing import Any

import numpy as np
from tqdm import tqdm

from export.baselines import Contestant
from export.dataset import FaceSet, evaluation_pair
from export.degradations import FacePair, crop_matrix
from export.face_results import FaceResults, sheet
from export.measures import Measured, Measures, mean_of, summary
from export.metrics import psnr
from idm_rt.geometry import crop_face
from idm_rt.restorer import Restorer
from idm_rt.types import RgbImage

SHEET_FACES = 10
INPUT = Contestant("input", lambda face: face)
TRUTH = Contestant("truth", lambda face: face)  # it is not restored: its own figures are those without a truth


def evaluate_level(
    contestants: Sequence[Contestant], faces: FaceSet, level: str, measures: Measures, few: int, results: FaceResults
) -> tuple[dict[str, Any], np.ndarray]:
    """(mean measures per contestant on one fixed set, overall and per source; a sheet of faces).

    Slow contestants run on ``few`` faces only. What ``results`` holds is not measured again.
    """
    count = len(faces.records)
    chosen = set(np.linspace(0, count - 1, min(few, count)).astype(int).tolist())
    on_sheet = set(np.linspace(0, count - 1, min(SHEET_FACES, count)).astype(int).tolist())
    everyone = [INPUT, *contestants, TRUTH]
    rows: list[dict[str, Measured]] = []
    pictures: list[list[RgbImage | None]] = []
    progress = tqdm(zip(faces.records, faces.canvases, strict=True), total=count, desc=level, disable=None)
    for index, (record, canvas) in enumerate(progress):
        face, shown = f"{level}/{record.file}", index in on_sheet
        running = [c for c in everyone if not c.slow or index in chosen]
        missing = results.missing(face, running, shown)
        if missing:
            measure_face(face, evaluation_pair(record, canvas, level), missing, measures, results, shown)
        rows.append({c.name: results.get(face, c) for c in running})
        if shown:
            pictures.append([results.picture(face, c) if c in running else None for c in everyone])
    sources = [record.source for record in faces.records]
    report = level_report(rows, sources, chosen, any(c.slow for c in contestants))
    return report, sheet(pictures, [c.name for c in everyone])


def measure_face(
    face: str, pair: FacePair, missing: Sequence[Contestant], measures: Measures, results: FaceResults, shown: bool
) -> None:
    """Let each contestant restore a face, and keep what is measured."""
    restored = {c.name: c.restore(pair.degraded) for c in missing if c is not TRUTH}
    measured = measures.of_all(restored, pair.clean)
    for contestant in missing:
        picture = restored.get(contestant.name, pair.clean)
        results.add(face, contestant, measured[contestant.name], picture if shown else None)


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


def authenticity(
    restorer: Restorer, faces: FaceSet, measures: Measures, results: FaceResults
) -> dict[str, dict[str, float]]:
    """What the model does to good faces: PSNR(f(x), x), identity, and PSNR(f(f(x)), f(x)), per number of steps."""
    rows: dict[str, list[dict[str, float]]] = defaultdict(list)
    progress = tqdm(zip(faces.records, faces.canvases, strict=True), total=len(faces.records), desc="clean faces")
    for record, canvas in progress:
        key = f"clean/{record.file}"
        if key not in results.journal.done:
            results.journal.add(key, clean_figures(restorer, canvas.numpy(), measures))
        for name, figures in results.journal.done[key].items():
            rows[name].append(figures)
    return {name: mean_of(values) for name, values in rows.items()}


def clean_figures(restorer: Restorer, canvas: RgbImage, measures: Measures) -> dict[str, dict[str, float]]:
    """The figures of one good face, per number of steps."""
    x = crop_face(canvas, crop_matrix(canvas.shape[0], None))
    embedding = measures.identity.embed(x)
    out = {}
    for steps in restorer.manifest.steps:
        once = restorer.restore(x[None], steps)
        twice = restorer.restore(once, steps)[0]
        identity = float(np.linalg.norm(measures.identity.embed(once[0]) - embedding))
        figures = {"psnr_db": psnr(once[0], x), "identity": identity, "psnr_again_db": psnr(twice, once[0])}
        out[f"steps {steps}"] = figures
    return out
