"""Restore the training set with a trained network: ``python -m export.enhance_dataset FACES RUN OUT ...``.

The extrinsic step of IDM (ICCV 2023): photos of a training set are themselves blurred and noisy, and a restorer cannot
learn detail that its truth does not show. A restored face replaces the photo only if a no-reference score rises and a
recogniser still takes it for the same face. OUT is a new version of the data set; held-out faces are never touched, so
that rounds can be compared. Killed, the same command goes on.
"""

from __future__ import annotations

import argparse
import json
import logging
import shutil
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import cv2
import numpy as np
import torch
from torch import Tensor
from tqdm import tqdm

from export.brisque import Brisque
from export.commands import trained_network
from export.dataset import to_chw, to_unit
from export.journal import Journal
from export.losses import IdentityLoss
from export.prepare import FaceRecord, margin_of, read_records, read_rgb, sharpness, write_lines
from export.runs import run_command, write_atomic, write_json
from export.teacher_sampler import sample_posterior
from export.validation import denoiser_of
from idm_rt.errors import ConfigError
from idm_rt.model_files import sha256_of
from idm_rt.types import RgbImage

log = logging.getLogger(__name__)

Score = Callable[[RgbImage], float]  # of an aligned face, higher is better


@dataclass(frozen=True, slots=True)
class Gate:
    """When a restored face is taken."""

    min_gain: float = 1.0  # in points of the score
    max_identity: float = 0.10  # 1 - cosine of the recogniser's embeddings


@dataclass(frozen=True, slots=True)
class Verdict:
    """What was found about one face."""

    accepted: bool
    score_before: float
    score_after: float
    identity: float

    @classmethod
    def of(cls, before: RgbImage, after: RgbImage, score: Score, identity: float, gate: Gate) -> Verdict:
        """Weigh a restored crop against the photo's."""
        a, b = score(before), score(after)
        return cls(
            b - a >= gate.min_gain and identity <= gate.max_identity, round(a, 2), round(b, 2), round(identity, 4)
        )


class DatasetEnhancer:
    """Restores canvases and decides which of them to keep."""

    def __init__(
        self,
        restore: Callable[[Tensor], Tensor],
        identity: Callable[[Tensor, Tensor], Tensor],
        score: Score,
        gate: Gate,
    ) -> None:
        """``restore`` and ``identity`` work on (1, 3, H, W) in -1..1; the latter on the crops alone."""
        self._restore, self._identity, self._score, self._gate = restore, identity, score, gate

    def enhance(self, canvas: RgbImage) -> tuple[RgbImage, Verdict]:
        """The canvas to train on from now on, and why."""
        x = to_unit(to_chw(canvas)[None])
        with torch.no_grad():
            restored = self._restore(x).clamp(-1, 1)
            margin = margin_of(canvas)
            inside = (slice(None), slice(None), slice(margin, -margin), slice(margin, -margin))
            identity = float(self._identity(restored[inside], x[inside]).mean())
        after = np.ascontiguousarray(((restored[0] + 1) * 127.5).round().byte().permute(1, 2, 0).numpy())
        crop = (slice(margin, -margin), slice(margin, -margin))
        verdict = Verdict.of(canvas[crop], after[crop], self._score, identity, self._gate)
        return (after if verdict.accepted else canvas), verdict


def enhance_face(folder: Path, record: FaceRecord, out: Path, enhancer: DatasetEnhancer) -> Verdict:
    """Write the new version of one face.

    Raises:
        ConfigError: its picture cannot be read.
    """
    canvas = read_rgb(folder / record.file)
    if canvas is None:
        raise ConfigError(f"{folder / record.file} cannot be read; run export.prepare again")
    better, verdict = enhancer.enhance(canvas)
    encoded = cv2.imencode(".png", cv2.cvtColor(better, cv2.COLOR_RGB2BGR))[1]
    write_atomic(out / record.file, encoded.tobytes())
    return verdict


def next_version(record: FaceRecord, verdict: Verdict, folder: Path, run_sha256: str) -> FaceRecord:
    """The face's line in the new data set."""
    if not verdict.accepted:
        return record
    canvas = read_rgb(folder / record.file)
    assert canvas is not None
    margin = margin_of(canvas)
    crisp = round(sharpness(canvas[margin:-margin, margin:-margin]), 1)
    return replace(record, sharpness=crisp, restored_by=(*record.restored_by, run_sha256))


def enhance_dataset(faces: Path, run: Path, out: Path, enhancer: DatasetEnhancer, settings: dict[str, object]) -> None:
    """Write OUT; see the module's text."""
    records, run_sha256 = read_records(faces), sha256_of(run / "checkpoint.pt")
    (out / "faces").mkdir(parents=True, exist_ok=True)
    settings = {**settings, "faces": sha256_of(faces / "faces.jsonl"), "run": run_sha256}
    made: list[FaceRecord] = []
    with Journal(out / "journal.jsonl", settings) as journal:
        for record in tqdm(records, desc="enhance", unit="face", disable=None):
            if record.split != "train":
                shutil.copyfile(faces / record.file, out / record.file)
                made.append(record)
                continue
            if record.file not in journal.done:
                journal.add(record.file, asdict(enhance_face(faces, record, out, enhancer)))
            made.append(next_version(record, Verdict(**journal.done[record.file]), out, run_sha256))
        verdicts = [Verdict(**row) for row in journal.done.values()]
    write_lines(out / "faces.jsonl", (asdict(record) for record in made))
    summary = {**settings, **summary_of(verdicts)}
    write_json(out / "enhancement.json", summary)
    log.info("%s", json.dumps(summary))


def summary_of(verdicts: list[Verdict]) -> dict[str, float]:
    """Counts and means of a round."""
    taken = [v for v in verdicts if v.accepted]
    return {
        "seen": len(verdicts),
        "accepted": len(taken),
        "mean_gain": round(float(np.mean([v.score_after - v.score_before for v in verdicts])), 3),
        "mean_gain_accepted": round(float(np.mean([v.score_after - v.score_before for v in taken] or [0.0])), 3),
        "mean_identity_accepted": round(float(np.mean([v.identity for v in taken] or [0.0])), 4),
    }


def main(argv: list[str] | None = None) -> int:
    """Command line; returns the exit status."""
    parser = argparse.ArgumentParser(prog="python -m export.enhance_dataset", description=__doc__)
    parser.add_argument("faces", type=Path, help="data set to start from")
    parser.add_argument("run", type=Path, help="run of export.train_teacher or export.distill")
    parser.add_argument("out", type=Path, help="folder of the new version")
    parser.add_argument("--recogniser", type=Path, required=True, help="mobilefacenet.json")
    parser.add_argument("--brisque", type=Path, required=True, help="BRISQUE's regression, svm.txt of PyPI brisque")
    parser.add_argument("--steps", type=int, default=15)
    gate = Gate()
    parser.add_argument("--min-gain", type=float, default=gate.min_gain, help="points of BRISQUE")
    parser.add_argument("--max-identity", type=float, default=gate.max_identity, help="1 - cosine")
    parser.add_argument("--dry-run", action="store_true", help="say what would be done and stop")
    args = parser.parse_args(argv)
    return run_command(lambda: _run(args))


def _run(args: argparse.Namespace) -> None:
    gate = Gate(args.min_gain, args.max_identity)
    settings: dict[str, object] = {"steps": args.steps, **asdict(gate)}
    count = sum(record.split == "train" for record in read_records(args.faces))
    net = trained_network(args.run)[0]
    identity, brisque = IdentityLoss(args.recogniser), Brisque(args.brisque)
    if args.dry_run:
        print(json.dumps({**settings, "train_faces": count}))
        return

    def restore(x: Tensor) -> Tensor:
        return sample_posterior(denoiser_of(net), x, args.steps, torch.Generator().manual_seed(0))

    enhancer = DatasetEnhancer(restore, identity, lambda face: -brisque(face), gate)
    enhance_dataset(args.faces, args.run, args.out, enhancer, settings)


if __name__ == "__main__":
    raise SystemExit(main())
