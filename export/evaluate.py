"""Measure a model on held-out people: ``python -m export.evaluate FACES WEIGHTS OUT [--model NAME]``.

FACES is made by ``export.prepare``; WEIGHTS is the folder with the measuring networks (VGG16-HED as
vgg16_hed_fp16.safetensors, dlib's two files). Writes OUT/evaluation.json, OUT/evaluation.md and a sheet per level.
"""

from __future__ import annotations

import argparse
import logging
from collections import defaultdict
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
from tqdm import tqdm

from export.dataset import FaceSet, evaluation_pairs, load_faces, spread_faces, to_chw, to_unit
from export.losses import VggHed
from export.metrics import DlibIdentity, denoise_and_sharpen, psnr, ssim
from export.runs import run_command, write_atomic, write_json
from idm_rt.restorer import Restorer, open_restorer
from idm_rt.types import RgbImage

log = logging.getLogger(__name__)

DEFAULT_LEVELS = ("call-mild", "call-medium", "call-hard")
SHEET_FACES = 10


@dataclass(frozen=True, slots=True)
class Measures:
    """The measuring networks."""

    vgg: VggHed
    identity: DlibIdentity

    @torch.no_grad()
    def of_all(self, pictures: dict[str, RgbImage], truth: RgbImage) -> dict[str, dict[str, float]]:
        """Every distance of every picture to the truth, by the picture's name."""
        features, embedding = self.vgg.features(as_batch(truth)), self.identity.embed(truth)
        return {
            name: {
                "psnr_db": psnr(picture, truth),
                "ssim": ssim(picture, truth),
                "vgg_hed": float(self.vgg.distance(self.vgg.features(as_batch(picture)), features)),
                "identity": float(np.linalg.norm(self.identity.embed(picture) - embedding)),
            }
            for name, picture in pictures.items()
        }


def as_batch(picture: RgbImage) -> torch.Tensor:
    """(1, 3, H, W) in -1..1."""
    return to_unit(to_chw(picture)[None])


def contestants(restorer: Restorer, degraded: RgbImage) -> dict[str, RgbImage]:
    """The input and every way to restore it."""
    batch = degraded[None]
    ours = {f"{restorer.manifest.name}, steps {n}": restorer.restore(batch, n)[0] for n in restorer.manifest.steps}
    return {"input": degraded, "opencv denoise+sharpen": denoise_and_sharpen(degraded), **ours}


def evaluate_level(restorer: Restorer, faces: FaceSet, level: str, measures: Measures, sheet: Path) -> dict[str, Any]:
    """Mean measures per contestant on one fixed set, overall and per source."""
    rows: dict[str, list[dict[str, float]]] = defaultdict(list)
    sources: list[str] = []
    pictures: list[list[RgbImage]] = []
    shown = set(np.linspace(0, len(faces.records) - 1, SHEET_FACES).astype(int).tolist())
    pairs = evaluation_pairs(faces, level)
    for index, (record, pair) in enumerate(tqdm(pairs, total=len(faces.records), desc=level, disable=None)):
        results = contestants(restorer, pair.degraded)
        for name, distances in measures.of_all(results, pair.clean).items():
            rows[name].append(distances)
        sources.append(record.source)
        if index in shown:
            pictures.append([*results.values(), pair.clean])
    write_sheet(sheet, pictures)
    return {
        "faces": len(sources),
        "mean": {name: mean_of(values) for name, values in rows.items()},
        "per_source": {source: mean_per_contestant(rows, sources, source) for source in sorted(set(sources))},
    }


def mean_per_contestant(
    rows: dict[str, list[dict[str, float]]], sources: list[str], source: str
) -> dict[str, dict[str, float]]:
    """Means over the faces of one source."""
    picked = [index for index, name in enumerate(sources) if name == source]
    return {name: mean_of([values[index] for index in picked]) for name, values in rows.items()}


def mean_of(rows: list[dict[str, float]]) -> dict[str, float]:
    """Mean of each measure."""
    return {key: round(float(np.mean([row[key] for row in rows])), 4) for key in rows[0]}


def authenticity(restorer: Restorer, faces: FaceSet, measures: Measures) -> dict[str, dict[str, float]]:
    """What the model does to good faces: PSNR(f(x), x), identity, and PSNR(f(f(x)), f(x)), per number of steps."""
    rows: dict[str, list[dict[str, float]]] = defaultdict(list)
    clean = [pair.clean for _, pair in evaluation_pairs(faces, "call-mild")]
    for x in tqdm(clean, desc="clean faces", disable=None):
        for steps in restorer.manifest.steps:
            once = restorer.restore(x[None], steps)
            twice = restorer.restore(once, steps)[0]
            distances = {"psnr_db": psnr(once[0], x), "identity": measures.identity.distance(once[0], x)}
            rows[f"steps {steps}"].append({**distances, "psnr_again_db": psnr(twice, once[0])})
    return {name: mean_of(values) for name, values in rows.items()}


def write_sheet(path: Path, rows: list[list[RgbImage]]) -> None:
    """A PNG with one row per face: the contestants in order, then the truth."""
    picture = np.vstack([np.hstack(row) for row in rows])
    write_atomic(path, cv2.imencode(".png", np.ascontiguousarray(picture[..., ::-1]))[1].tobytes())


def markdown(report: dict[str, Any]) -> str:
    """The tables of a report."""
    lines = [f"Model `{report['model']}` {report['version']}, engine {report['engine']}.", ""]
    for level, result in report["levels"].items():
        lines += [f"`{level}`, {result['faces']} faces of people never trained on:", ""]
        lines += ["| | PSNR, dB | SSIM | vgg-hed | of input | identity | of input |", "|---|---|---|---|---|---|---|"]
        base = result["mean"]["input"]
        for name, m in result["mean"].items():
            vgg, identity = m["vgg_hed"] / base["vgg_hed"], m["identity"] / base["identity"]
            lines.append(
                f"| {name} | {m['psnr_db']:.2f} | {m['ssim']:.3f} | {m['vgg_hed']:.3f} | {vgg:.2f} "
                f"| {m['identity']:.3f} | {identity:.2f} |"
            )
        lines.append("")
    lines += ["Clean faces (a good face is to be left alone):", ""]
    lines += ["| | PSNR(f(x), x), dB | identity(f(x), x) | PSNR(f(f(x)), f(x)), dB |", "|---|---|---|---|"]
    for name, m in report["clean"].items():
        lines.append(f"| {name} | {m['psnr_db']:.1f} | {m['identity']:.3f} | {m['psnr_again_db']:.1f} |")
    return "\n".join(lines) + "\n"


def evaluate(
    faces: Path, weights: Path, out: Path, model: str | None, engine: str, levels: list[str], limit: int | None
) -> None:
    """Measure one model; see the module's text."""
    measures = Measures(VggHed(weights / "vgg16_hed_fp16.safetensors"), DlibIdentity(weights))
    val = load_faces(faces, "val")
    val = spread_faces(val, limit) if limit else val
    with open_restorer(model, engine) as restorer:
        report = {
            "model": restorer.manifest.name,
            "version": restorer.manifest.version,
            "engine": f"{restorer.engine} {restorer.precision}",
            "onnx_sha256": restorer.manifest.files["onnx"].sha256,
            "levels": {n: evaluate_level(restorer, val, n, measures, out / f"sheet-{n}.png") for n in levels},
            "clean": authenticity(restorer, val, measures),
        }
    write_json(out / "evaluation.json", report)
    write_atomic(out / "evaluation.md", markdown(report).encode())
    log.info("%s", markdown(report))


def main(argv: list[str] | None = None) -> int:
    """Command line; returns the exit status."""
    parser = argparse.ArgumentParser(prog="python -m export.evaluate", description=__doc__)
    parser.add_argument("faces", type=Path)
    parser.add_argument("weights", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("--model", help="name or folder (default: the shipped model)")
    parser.add_argument("--engine", default="auto")
    parser.add_argument("--limit", type=int, help="only so many faces, spread over all sources")
    parser.add_argument("--levels", nargs="+", default=list(DEFAULT_LEVELS))
    args = parser.parse_args(argv)
    return run_command(
        lambda: evaluate(args.faces, args.weights, args.out, args.model, args.engine, args.levels, args.limit)
    )


if __name__ == "__main__":
    raise SystemExit(main())
