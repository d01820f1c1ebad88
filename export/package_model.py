"""Run directory -> a model folder that the engines load: ``python -m export.package_model RUN FACES OUT_FOLDER``.

Writes model.safetensors, model.onnx (f32), model_fp16.onnx, model.json with their SHA-256, and MODEL_CARD.md.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import logging
from collections import Counter
from pathlib import Path
from typing import Any

from export.commands import trained_network
from export.degradations import CALL_LEVELS
from export.evaluate import markdown
from export.export_onnx import OPSET, export_onnx
from export.half_weights import rounded_to_half
from export.prepare import FaceRecord, read_records
from export.runs import RunDirectory, run_command, write_atomic, write_json
from export.tables import Table
from idm_rt.config import STEPS
from idm_rt.diffusion import KAPPA
from idm_rt.geometry import ALIGN_TEMPLATE, CROP_SIZE
from idm_rt.model_manifest import MANIFEST_NAME, SCHEMA
from idm_rt.network import DenoiserConfig, DenoiserNet

log = logging.getLogger(__name__)

LICENCE = "Apache-2.0"
TOLERANCE = {"f32_db": 60.0, "bf16_db": 45.0, "fp16_db": 50.0}


def plan(run: Path, faces: Path, out: Path, version: str) -> dict[str, Any]:
    """What would be packaged."""
    net, config, seen = trained_network(run)
    size = {"parameters": sum(p.numel() for p in net.parameters()), "network": net.config.to_dict()}
    learnt = {"samples_seen": seen, "plain": bool(config.get("plain")), "faces": len(read_records(faces))}
    return {"out": str(out), "name": out.name, "version": version, **size, **learnt}


def file_entry(path: Path) -> dict[str, Any]:
    """A file's line in the manifest."""
    data = path.read_bytes()
    return {"path": path.name, "sha256": hashlib.sha256(data).hexdigest(), "bytes": len(data)}


def package(run: Path, faces: Path, out: Path, version: str, evaluation: Path | None) -> None:
    """Write the model folder; see the module's text."""
    from safetensors.torch import save

    net, config, seen = trained_network(run)
    out.mkdir(parents=True, exist_ok=True)
    weights = rounded_to_half(net.state_dict())
    write_atomic(out / "model.safetensors", save(weights))
    net.load_state_dict(weights)  # the ONNX files hold the same numbers
    parity = {p: export_onnx(net, out / name, p) for p, name in (("f32", "model.onnx"), ("fp16", "model_fp16.onnx"))}
    log.info("ONNX against torch: %s dB", {k: round(v, 1) for k, v in parity.items()})
    manifest = {
        "schema": SCHEMA,
        "name": out.name,
        "version": version,
        "licence": LICENCE,
        "crop_size": CROP_SIZE,
        "align_template": ALIGN_TEMPLATE.tolist(),
        "steps": list(STEPS),
        "kappa": KAPPA,
        "network": net.config.to_dict(),
        "files": {
            "onnx": file_entry(out / "model.onnx"),
            "onnx_fp16": file_entry(out / "model_fp16.onnx"),
            "weights": file_entry(out / "model.safetensors"),
        },
        "tolerance": TOLERANCE,
        "training": {"config": config, "samples_seen": seen, "onnx_opset": OPSET},
    }
    keep_int8(out, manifest)
    write_json(out / MANIFEST_NAME, manifest)
    report = json.loads(evaluation.read_text()) if evaluation else None
    curve = curve_table(RunDirectory(run, config).stats(), seen)
    write_atomic(out / "MODEL_CARD.md", model_card(manifest, read_records(faces), report, curve).encode())


def keep_int8(out: Path, manifest: dict[str, Any]) -> None:
    """Carry the int8 file (``export.quantize``) over to the new manifest if the weights are still the same."""
    if not (out / MANIFEST_NAME).is_file():
        return
    before = json.loads((out / MANIFEST_NAME).read_text())
    same = before["files"]["weights"]["sha256"] == manifest["files"]["weights"]["sha256"]
    if same and "onnx_int8" in before["files"]:
        manifest["files"]["onnx_int8"] = before["files"]["onnx_int8"]
        manifest["tolerance"] = {**manifest["tolerance"], "int8_db": before["tolerance"]["int8_db"]}


def learnt_terms(config: dict[str, Any]) -> str:
    """The loss terms of a run, in words."""
    words = {
        "perceptual_weight": "vgg-hed features of crops of eyes, mouth and skin",
        "identity_weight": "a recogniser's embedding (MobileFaceNet; the measure is dlib's)",
        "chroma_weight": "tints",
        "grid_weight": "the pattern of the 4x4 pixel blocks",
        "laplacian_weight": "the finest detail",
        "excess_weight": "fine patterns stronger than the truth's",
        "gan_weight": "a patch discriminator on the same crops",
    }
    terms = ["pixels", *(text for name, text in words.items() if config.get(name))]
    return "\n".join(f"- {term}" for term in terms)


def curve_table(rows: list[dict[str, Any]], seen: int) -> str:
    """The last run's validation figures over all faces seen, as Markdown: what more training buys.

    Args:
        rows: of the run's stats.jsonl.
        seen: faces seen at the end, those of earlier runs included.
    """
    if not rows:
        return ""
    figures = [name for name in ("psnr_x1", "vgg_x1", "identity_x1", "vgg_x4") if name in rows[-1]]
    inherited = seen - rows[-1]["seen"]
    lines = [[f"{inherited + row['seen']:,}", *(f"{row[name]:.4g}" for name in figures)] for row in rows]
    start = rows[0]
    lines.insert(0, ["input", *(f"{start[name.split('_')[0] + '_input']:.4g}" for name in figures)])
    caption = (
        "Validation, last run (24 held-out faces, `call-medium`; x1, x4: one and four steps; identity: 1 - cosine of "
        "MobileFaceNet; the rate falls to zero at the end):"
    )
    return Table(caption, ["faces seen", *figures], lines).to_markdown() + "\n\n"


def model_card(
    manifest: dict[str, Any], records: list[FaceRecord], report: dict[str, Any] | None, curve: str = ""
) -> str:
    """What the model is, what it learnt from, how good it is and where it fails, as Markdown."""
    parameters = sum(p.numel() for p in DenoiserNet(DenoiserConfig.from_dict(manifest["network"])).parameters())
    training = manifest["training"]
    return f"""# {manifest["name"]} {manifest["version"]}

Restores aligned {manifest["crop_size"]} px faces of video calls in 1, 2 or 4 diffusion steps.
{parameters / 1e6:.2f} million parameters, norm-free U-Net on 4x4 pixel blocks (`idm_rt/network.py`), bridge diffusion
(`idm_rt/diffusion.py`), kappa {manifest["kappa"]}. Licence of the weights: {manifest["licence"]}.

## Training

{training["samples_seen"]:,} faces seen on two CPU cores (`python -m export.distill`; the last run's configuration is in
model.json, the runs that it began from differ in batch size, optimiser and terms). The last run's terms:

{learnt_terms(training["config"])}

Degradations are those of a call: camera faults and a real encoder round trip (VP8, VP9, H.264, AV1);
{CALL_LEVELS["train"].clean_share:.0%} of the faces are left clean. `model_int8.onnx`, where there is one, is the same
network quantised after training (docs/adr/0012).

{curve}## Data

{len(records)} aligned faces after filters, split by person. The photos themselves are not part of this project.

| source | licence | origin | train | val |
|---|---|---|---|---|
{data_table(records)}

## Measured

{measured(report)}
## Limits

- Trained for {training["samples_seen"]:,} samples on a CPU: a first, modest version. It sharpens and cleans; it
  does not invent what a face of under about 60 px across does not show.
- More steps refine little at this stage of training; the tables say how much.
- Some of the held-out faces were also looked at during training, to choose settings: faces that nobody has tuned to may
  read lower.
- Staff portraits and studio pictures dominate the data: profile views, hands before the face, strong coloured light,
  children and very old people are rare in it.
- It restores whatever picture it is given and cannot tell a person from a picture of one.

## Use and consent

For improving the picture of people who take part in a call and know that it is improved. It must not be used to
identify people, nor as evidence of what a person looked like: restored detail is plausible, not recorded.
"""


def data_table(records: list[FaceRecord]) -> str:
    """One line per source and licence."""
    counts = Counter((r.source, r.licence, r.origin, r.split) for r in records)
    keys = sorted({key[:3] for key in counts})
    return "\n".join(
        f"| {s} | {lic} | {o} | {counts[s, lic, o, 'train']} | {counts[s, lic, o, 'val']} |" for s, lic, o in keys
    )


def measured(report: dict[str, Any] | None) -> str:
    """The evaluation's tables and how to make them again."""
    if report is None:
        return "Not measured yet; run `python -m export.evaluate` and package again.\n"
    faces = next(iter(report["levels"].values()))["faces"]
    command = f"python -m export.evaluate FACES WEIGHTS OUT --levels {' '.join(report['levels'])} --limit {faces}"
    return f"`{command}` gave:\n\n{markdown(report)}"


def main(argv: list[str] | None = None) -> int:
    """Command line; returns the exit status."""
    parser = argparse.ArgumentParser(prog="python -m export.package_model", description=__doc__)
    parser.add_argument("run", type=Path)
    parser.add_argument("faces", type=Path)
    parser.add_argument("out", type=Path, help="for instance engines/models/idm-face-256")
    parser.add_argument("--version", default="0.1.0")
    parser.add_argument("--evaluation", type=Path, help="evaluation.json to put into the card")
    parser.add_argument("--dry-run", action="store_true", help="read run and faces, say what would be written and stop")
    args = parser.parse_args(argv)
    if args.dry_run:
        return run_command(lambda: print(json.dumps(plan(args.run, args.faces, args.out, args.version), indent=2)))
    return run_command(lambda: package(args.run, args.faces, args.out, args.version, args.evaluation))


if __name__ == "__main__":
    raise SystemExit(main())
