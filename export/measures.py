"""All measures of a face against the truth, with the truth's own features computed once."""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch

from export.brisque import Brisque
from export.dataset import to_chw, to_unit
from export.frechet import MobileNetFeatures, frechet_distance
from export.learned_measures import LearnedMeasure, open_learned
from export.losses import VggHed, excess_power
from export.metrics import DLIB_FILES, DlibIdentity, psnr, ssim
from idm_rt.model_files import sha256_of
from idm_rt.types import RgbImage

log = logging.getLogger(__name__)

VGG_FILE, MOBILENET_FILE, BRISQUE_FILE = "vgg16_hed_fp16.safetensors", "mobilenet_v2-b0353104.pth", "brisque/svm.txt"


@dataclass(frozen=True, slots=True)
class Measured:
    """One picture's figures, and its features for the distance between sets."""

    figures: dict[str, float]
    features: np.ndarray | None


@dataclass(frozen=True, slots=True)
class Measures:
    """The measuring networks; those with a default are optional."""

    vgg: VggHed
    identity: DlibIdentity
    mobilenet: MobileNetFeatures | None = None
    brisque: Brisque | None = None
    learned: tuple[LearnedMeasure, ...] = ()
    absent: dict[str, str] = field(default_factory=dict)  # what was wanted and is not there -> why

    @property
    def names(self) -> list[str]:
        """Everything that is measured."""
        optional = {"frechet": self.mobilenet, "brisque": self.brisque}
        present = [name for name, network in optional.items() if network is not None]
        learned = (measure.name for measure in self.learned)
        return ["psnr_db", "ssim", "vgg_hed", "identity", "excess", *present, *learned]

    @torch.no_grad()
    def of_all(self, pictures: dict[str, RgbImage], truth: RgbImage) -> dict[str, Measured]:
        """Every figure of every picture against the truth by the picture's name, and of the "truth" itself."""
        features, embedding = self.vgg.features(as_batch(truth)), self.identity.embed(truth)
        alone = {m.name: m.value(truth, truth) for m in self.learned if m.alone}
        out = {"truth": Measured({**self._alone(truth), **alone}, self._features(truth))}
        for name, picture in pictures.items():
            figures = {
                "psnr_db": psnr(picture, truth),
                "ssim": ssim(picture, truth),
                "vgg_hed": float(self.vgg.distance(self.vgg.features(as_batch(picture)), features)),
                "identity": float(np.linalg.norm(self.identity.embed(picture) - embedding)),
                "excess": float(excess_power(as_batch(picture), as_batch(truth))),
                **{measure.name: measure.value(picture, truth) for measure in self.learned},
            }
            out[name] = Measured({**figures, **self._alone(picture)}, self._features(picture))
        return out

    def _alone(self, picture: RgbImage) -> dict[str, float]:
        """Figures that need no truth."""
        return {} if self.brisque is None else {"brisque": self.brisque(picture)}

    def _features(self, picture: RgbImage) -> np.ndarray | None:
        return None if self.mobilenet is None else self.mobilenet.embed(picture)


def open_measures(weights: Path, learned: Sequence[str] = ()) -> Measures:
    """The networks in a folder, and those of ``learned`` (see ``export.learned_measures``) that can be had.

    MobileNetV2, BRISQUE and learned measures that are not there are named in the log and left out.

    Raises:
        ModelError: VGG16-HED or dlib's files are missing, or a file is damaged.
    """
    mobilenet, brisque = weights / MOBILENET_FILE, weights / BRISQUE_FILE
    files = {"frechet": mobilenet, "brisque": brisque}
    opened, absent = open_learned(learned)
    absent = {**{name: f"{file} is missing" for name, file in files.items() if not file.is_file()}, **absent}
    for name, reason in absent.items():
        log.warning("%s is left out: %s", name, reason)
    return Measures(
        VggHed(weights / VGG_FILE),
        DlibIdentity(weights),
        MobileNetFeatures(mobilenet) if mobilenet.is_file() else None,
        Brisque(brisque) if brisque.is_file() else None,
        opened,
        absent,
    )


def weights_version(weights: Path) -> str:
    """SHA-256 over the measuring networks' files that are there."""
    names = (VGG_FILE, *DLIB_FILES, MOBILENET_FILE, BRISQUE_FILE)
    found = {name: sha256_of(weights / name) for name in names if (weights / name).is_file()}
    return hashlib.sha256(repr(found).encode()).hexdigest()


def as_batch(picture: RgbImage) -> torch.Tensor:
    """(1, 3, H, W) in -1..1."""
    return to_unit(to_chw(picture)[None])


def summary(rows: list[dict[str, Measured]]) -> tuple[dict[str, dict[str, float]], dict[str, float]]:
    """(means per contestant, means of the truth) over faces; only contestants that saw every one of them.

    With features and at least two faces, ``frechet`` is the distance of each contestant's set to the truth's.
    """
    names = [name for name in rows[0] if all(name in row for row in rows)]
    means = {name: mean_of([row[name].figures for row in rows]) for name in names}
    if len(rows) > 1 and rows[0]["truth"].features is not None:
        sets = {name: np.stack([row[name].features for row in rows]) for name in names}  # type: ignore[misc]
        for name in names:
            means[name]["frechet"] = round(frechet_distance(sets[name], sets["truth"]), 4) if name != "truth" else 0.0
    return {name: means[name] for name in names if name != "truth"}, means["truth"]


def mean_of(rows: list[dict[str, float]]) -> dict[str, float]:
    """Mean of each measure."""
    return {key: round(float(np.mean([row[key] for row in rows])), 4) for key in rows[0]}
