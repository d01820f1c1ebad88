"""Post-training int8 of a model folder: ``python -m export.quantize MODEL FACES WEIGHTS OUT [--install]``.

Calibrates on training faces at the states that the sampler really visits, writes OUT/model_int8.onnx (ONNX Runtime's
static QDQ form, run in OpenVINO), measures it beside f32 on people never trained on, and writes OUT/quantization.json
and .md. ``--install`` puts it into the model folder, if it is within the limits and faster on this machine.
"""

from __future__ import annotations

import argparse
import logging
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from export.dataset import FaceSet, evaluation_pairs, load_faces, spread_faces, to_chw, to_unit
from export.half_weights import unpack
from export.losses import VggHed
from export.metrics import DlibIdentity, psnr
from export.package_model import file_entry
from export.runs import moved_into_place, run_command, write_atomic, write_json
from idm_rt.backends import Backend, EngineChoice, open_backend
from idm_rt.backends.openvino_backend import OpenVinoBackend
from idm_rt.diffusion import KAPPA, bridge_state, time_grid
from idm_rt.errors import ModelError
from idm_rt.model_manifest import MANIFEST_NAME, ModelManifest, load_manifest
from idm_rt.restorer import Restorer, to_planes
from idm_rt.types import RgbImage

log = logging.getLogger(__name__)

VGG_HED_LIMIT = 0.03  # relative rise of the mean over f32
IDENTITY_LIMIT = 0.01  # rise of the mean distance
INT8_TOLERANCE_DB = 45.0  # against f32, for the manifest: that of bf16; 55 was measured
_LEVELS = ("call-medium", "call-hard")
_RUNS = 40  # timed runs per engine, in turns


@dataclass(frozen=True, slots=True)
class Recipe:
    """What is quantised, and how its ranges are found."""

    ops: tuple[str, ...] = ("Conv",)
    keep_ends: bool = True  # the first and the last convolution stay f32: they see and make pixels
    method: str = "MinMax"  # or "Percentile", "Entropy"; of onnxruntime.quantization.CalibrationMethod


States = dict[str, NDArray[np.float32]]  # the network's inputs: x_t, y, t


def visited_states(denoiser: Backend, crops: NDArray[np.uint8], steps: tuple[int, ...]) -> Iterator[States]:
    """The inputs that the network gets while it restores each crop, for every number of steps."""
    eps = np.random.default_rng(0).standard_normal((1, *to_planes(crops[:1]).shape[1:]), dtype=np.float32)
    for crop in crops:
        y = to_planes(crop[None])
        for count in steps:
            x0 = y
            for t in time_grid(count):
                x_t = np.asarray(bridge_state(x0, y, eps, t), np.float32)
                yield {"x_t": x_t, "y": y, "t": np.full(1, t, np.float32)}
                x0 = denoiser.denoise(x_t, y, t)


def quantize(model: Path, out: Path, states: Iterator[States], recipe: Recipe) -> int:
    """Write the int8 form of an ONNX model; returns how many convolutions are int8.

    Raises:
        ModelError: nothing in the model can be quantised.
    """
    import onnx
    from onnxruntime.quantization import (
        CalibrationDataReader,
        CalibrationMethod,
        QuantFormat,
        QuantType,
        quantize_static,
    )

    class Reader(CalibrationDataReader):
        def get_next(self) -> States | None:
            return next(states, None)

    graph = onnx.load(str(model))
    unpack(graph)
    names = [node.name for node in graph.graph.node if node.op_type == "Conv"]
    if len(names) < 3:
        raise ModelError(f"{model} has {len(names)} convolutions, expected a denoiser; export it again")
    kept = [names[0], names[-1]] if recipe.keep_ends else []
    with moved_into_place(out) as temporary:
        quantize_static(
            graph,
            str(temporary),
            Reader(),
            quant_format=QuantFormat.QDQ,
            op_types_to_quantize=list(recipe.ops),
            nodes_to_exclude=kept,
            per_channel=True,
            activation_type=QuantType.QUInt8,
            weight_type=QuantType.QInt8,
            calibrate_method=CalibrationMethod[recipe.method],
            extra_options={"ActivationSymmetric": False, "WeightSymmetric": True},
        )
    return len(names) - len(kept)


@dataclass(frozen=True, slots=True)
class Judges:
    """The networks that measure."""

    vgg: VggHed
    identity: DlibIdentity

    @torch.no_grad()
    def distances(self, pictures: dict[str, RgbImage], truth: RgbImage) -> dict[str, dict[str, float]]:
        """Distances of every picture to the truth, by the picture's name."""
        features, embedding = self._features(truth), self.identity.embed(truth)
        return {
            name: {
                "psnr_db": psnr(picture, truth),
                "vgg_hed": float(self.vgg.distance(self._features(picture), features)),
                "identity": float(np.linalg.norm(self.identity.embed(picture) - embedding)),
            }
            for name, picture in pictures.items()
        }

    def _features(self, picture: RgbImage) -> Any:
        return self.vgg.features(to_unit(to_chw(picture)[None]))


def compare(f32: Restorer, int8: Restorer, val: FaceSet, level: str, judges: Judges) -> dict[str, Any]:
    """Mean measures of both on one fixed set, per number of steps, and how far apart they are."""
    steps = (f32.manifest.steps[0], f32.manifest.steps[-1])
    rows: dict[str, list[dict[str, float]]] = {f"{k} {n}": [] for k in ("f32", "int8") for n in steps}
    apart: list[float] = []
    for _, pair in evaluation_pairs(val, level):
        restored: dict[str, RgbImage] = {}
        for n in steps:
            restored[f"f32 {n}"] = f32.restore(pair.degraded[None], n)[0]
            restored[f"int8 {n}"] = int8.restore(pair.degraded[None], n)[0]
            difference = restored[f"f32 {n}"].astype(np.float64) - restored[f"int8 {n}"]
            apart.append(float(10 * np.log10(255.0**2 / max(float(np.mean(difference**2)), 1e-12))))
        for name, distances in judges.distances(restored, pair.clean).items():
            rows[name].append(distances)
    means = {
        name: {key: round(float(np.mean([row[key] for row in values])), 4) for key in values[0]}
        for name, values in rows.items()
    }
    return {
        "faces": len(val.records),
        "mean": means,
        "change": {str(n): change(means[f"f32 {n}"], means[f"int8 {n}"]) for n in steps},
        "psnr_of_each_other_db": {"mean": round(float(np.mean(apart)), 2), "worst": round(min(apart), 2)},
    }


def change(f32: dict[str, float], int8: dict[str, float]) -> dict[str, float]:
    """Relative rise of vgg-hed, rise of identity, fall of PSNR."""
    return {
        "vgg_hed_relative": round(int8["vgg_hed"] / f32["vgg_hed"] - 1, 4),
        "identity": round(int8["identity"] - f32["identity"], 4),
        "psnr_db": round(int8["psnr_db"] - f32["psnr_db"], 3),
    }


def time_in_turns(engines: dict[str, Callable[[], object]], runs: int = _RUNS) -> dict[str, float]:
    """Median duration of each in ms; they run in turns, so that what else the machine does meets all alike."""
    samples: dict[str, list[float]] = {name: [] for name in engines}
    for _ in range(runs):
        for name, run in engines.items():
            start = time.perf_counter()
            run()
            samples[name].append((time.perf_counter() - start) * 1000)
    return {name: round(float(np.median(values)), 2) for name, values in samples.items()}


def verdict(report: dict[str, Any]) -> tuple[bool, str]:
    """Whether int8 is to be shipped, and why or why not."""
    changes = [c for level in report["levels"].values() for c in level["change"].values()]
    vgg = max(c["vgg_hed_relative"] for c in changes)
    identity = max(c["identity"] for c in changes)
    ratio = report["ms"]["int8"] / report["ms"]["f32"]
    reasons = []
    if vgg >= VGG_HED_LIMIT:
        reasons.append(f"vgg-hed rises by {vgg:.1%}, less than {VGG_HED_LIMIT:.0%} is allowed")
    if identity >= IDENTITY_LIMIT:
        reasons.append(f"identity rises by {identity:.4f}, less than {IDENTITY_LIMIT} is allowed")
    if ratio >= 1:
        reasons.append(f"it takes {ratio:.2f} times as long as f32 here")
    kept = f"vgg-hed {vgg:+.1%}, identity {identity:+.4f}, {ratio:.2f} times the time of f32"
    return not reasons, "; ".join(reasons) or kept


def markdown(report: dict[str, Any]) -> str:
    """The report as tables."""
    ms, machine = report["ms"], report["machine"]
    place = f"{machine['cpu']}, {machine['cores']} cores ({', '.join(machine['cpu_features'])})"
    lines = [
        f"Model `{report['model']}` {report['version']}, {report['convolutions']} convolutions in int8, "
        f"calibrated on {report['calibration_faces']} training faces ({report['recipe']['method']}).",
        "",
        f"One step: f32 {ms['f32']:.1f} ms, int8 {ms['int8']:.1f} ms ({ms['int8'] / ms['f32']:.2f} of f32), in turns "
        f"on {place}.",
        "",
        "| level | faces | steps | vgg-hed f32 -> int8 | change | identity f32 -> int8 | change | PSNR change, dB |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for level, result in report["levels"].items():
        for n, c in result["change"].items():
            a, b = result["mean"][f"f32 {n}"], result["mean"][f"int8 {n}"]
            lines.append(
                f"| {level} | {result['faces']} | {n} | {a['vgg_hed']:.4f} -> {b['vgg_hed']:.4f} "
                f"| {c['vgg_hed_relative']:+.1%} | {a['identity']:.4f} -> {b['identity']:.4f} | {c['identity']:+.4f} "
                f"| {c['psnr_db']:+.2f} |"
            )
    return "\n".join([*lines, "", f"{'Ship it' if report['ship'] else 'Not shipped'}: {report['why']}."]) + "\n"


def run(
    folder: Path, faces: Path, weights: Path, out: Path, calibrate: int, limit: int, recipe: Recipe, install: bool
) -> None:
    """Quantise, measure, decide; see the module's text."""
    from idm_rt.machine import describe_machine

    manifest = load_manifest(folder)
    model, target = manifest.verified_file("onnx"), out / "model_int8.onnx"
    train = spread_faces(load_faces(faces, "train"), calibrate)
    crops = np.stack([pair.degraded for _, pair in evaluation_pairs(train, "call-medium")])
    choice = open_backend("openvino", manifest, precision="f32")
    convolutions = quantize(model, target, visited_states(choice.backend, crops, manifest.steps), recipe)
    judges = Judges(VggHed(weights / "vgg16_hed_fp16.safetensors"), DlibIdentity(weights))
    val = spread_faces(load_faces(faces, "val"), limit)
    int8 = OpenVinoBackend(target, manifest.crop_size, precision="int8")
    with Restorer(choice, manifest) as f32, Restorer(EngineChoice(int8, "to be measured"), manifest) as quantized:
        one = crops[:1]
        report = {
            "model": manifest.name,
            "version": manifest.version,
            "recipe": asdict(recipe),
            "convolutions": convolutions,
            "calibration_faces": len(crops),
            "kappa": KAPPA,
            "ms": time_in_turns({"f32": lambda: f32.correction(one), "int8": lambda: quantized.correction(one)}),
            "levels": {level: compare(f32, quantized, val, level, judges) for level in _LEVELS},
            "machine": describe_machine(),
        }
    report["ship"], report["why"] = verdict(report)
    write_json(out / "quantization.json", report)
    write_atomic(out / "quantization.md", markdown(report).encode())
    log.info("%s", markdown(report))
    if install:
        install_into(manifest, target, report)


def install_into(manifest: ModelManifest, int8: Path, report: dict[str, Any]) -> None:
    """Add the int8 file to a model folder.

    Raises:
        ModelError: the report says that it is not to be shipped.
    """
    import json

    if not report["ship"]:
        raise ModelError(f"int8 of {manifest.name!r} is not shipped: {report['why']}; leave out --install")
    write_atomic(manifest.folder / "model_int8.onnx", int8.read_bytes())
    path = manifest.folder / MANIFEST_NAME
    values = json.loads(path.read_text(encoding="utf-8"))
    values["files"]["onnx_int8"] = file_entry(manifest.folder / "model_int8.onnx")
    values["tolerance"]["int8_db"] = INT8_TOLERANCE_DB
    write_json(path, values)


def main(argv: list[str] | None = None) -> int:
    """Command line; returns the exit status."""
    parser = argparse.ArgumentParser(prog="python -m export.quantize", description=__doc__)
    parser.add_argument("model", type=Path, help="a folder with a model.json")
    parser.add_argument("faces", type=Path)
    parser.add_argument("weights", type=Path, help="folder of the measuring networks, as for export.evaluate")
    parser.add_argument("out", type=Path)
    parser.add_argument("--calibrate", type=int, default=48, help="training faces (default: %(default)s)")
    parser.add_argument("--limit", type=int, default=40, help="faces to measure on (default: %(default)s)")
    parser.add_argument("--ops", nargs="+", default=["Conv"], help="kinds of nodes (default: %(default)s)")
    parser.add_argument("--method", choices=("MinMax", "Percentile", "Entropy"), default="MinMax")
    parser.add_argument("--all", action="store_true", help="the first and the last convolution too")
    parser.add_argument("--install", action="store_true", help="put it into the model folder if it is good enough")
    args = parser.parse_args(argv)
    recipe = Recipe(tuple(args.ops), not args.all, args.method)
    return run_command(
        lambda: run(args.model, args.faces, args.weights, args.out, args.calibrate, args.limit, recipe, args.install)
    )


if __name__ == "__main__":
    raise SystemExit(main())
