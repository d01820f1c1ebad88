"""What a restorer has to beat: plain scaling, classical filters, Real-ESRGAN, and other networks of our own."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
import torch

from export.commands import trained_network
from export.dataset import to_chw, to_unit
from export.metrics import denoise_and_sharpen
from export.validation import denoiser_of
from idm_rt.diffusion import sample
from idm_rt.errors import ConfigError
from idm_rt.model_files import sha256_of
from idm_rt.model_manifest import MANIFEST_NAME, load_manifest
from idm_rt.network import DenoiserNet, load_denoiser
from idm_rt.peers.realesrgan import RealEsrganNcnn
from idm_rt.restorer import Restorer, open_restorer
from idm_rt.types import RgbImage

BASELINES = ("bicubic", "opencv", "realesrgan")
REGRESSOR = "plain regressor"
Restore = Callable[[RgbImage], np.ndarray]


@dataclass(frozen=True, slots=True)
class Contestant:
    """A way to restore a face, (S, S, 3) uint8 to the same."""

    name: str
    restore: Restore
    slow: bool = False  # seconds per face: measured on a few faces only
    version: str = ""  # of a network: SHA-256 of its weights and how it runs


def half_size(face: RgbImage) -> np.ndarray:
    """Averaged to half its side: about what a call has of a face, and what a 4x super-resolver is given."""
    return cv2.resize(face, None, fx=0.5, fy=0.5, interpolation=cv2.INTER_AREA)


def bicubic(face: RgbImage) -> np.ndarray:
    """Down to half and up again by bicubic interpolation: what a viewer that merely scales would show."""
    height, width = face.shape[:2]
    return cv2.resize(half_size(face), (width, height), interpolation=cv2.INTER_CUBIC)


class RealEsrgan:
    """Half the face, four times up by ``idm_rt.peers.realesrgan``, down to its size. Seconds per face.

    The one public peer whose weights lie in a package.
    """

    def __init__(self) -> None:
        """Raises ConfigError: a package is missing."""
        try:
            self._net = RealEsrganNcnn()
        except ConfigError as error:
            raise ConfigError(f"{error}; or leave realesrgan out of --baselines") from error

    def __call__(self, face: RgbImage) -> np.ndarray:
        """(S, S, 3) uint8 -> the same."""
        height, width = face.shape[:2]
        small = cv2.resize(self._net.upscale(half_size(face)), (width, height), interpolation=cv2.INTER_AREA)
        return np.clip(small + 0.5, 0, 255).astype(np.uint8)


def open_baselines(names: list[str]) -> list[Contestant]:
    """The baselines of these names, of ``BASELINES``.

    Raises:
        ConfigError: a package that one needs is missing.
    """
    made = {
        "bicubic": lambda: Contestant("bicubic", bicubic),
        "opencv": lambda: Contestant("opencv denoise+sharpen", denoise_and_sharpen),
        "realesrgan": lambda: Contestant("Real-ESRGAN x4plus", RealEsrgan(), slow=True),
    }
    return [made[name]() for name in BASELINES if name in names]


def torch_contestant(name: str, net: DenoiserNet, plain: bool, version: str) -> Contestant:
    """A network in torch, one step; without noise if it is a plain regressor."""
    size = 256
    noise = np.random.default_rng(0).standard_normal((1, 3, size, size), dtype=np.float32)  # the restorer's own
    eps = torch.zeros(1, 3, size, size) if plain else torch.from_numpy(noise)

    @torch.no_grad()
    def restore(face: RgbImage) -> np.ndarray:
        restored = sample(denoiser_of(net), to_unit(to_chw(face)[None]), eps, 1)[0]
        return ((restored.clamp(-1, 1) + 1.0) * 127.5).round().byte().permute(1, 2, 0).numpy()

    return Contestant(name if plain else f"{name}, steps 1", restore, version=version)


def trained_run(name: str, run: Path) -> Contestant:
    """The averaged network of a run of ``export.distill``.

    Raises:
        ConfigError: not a run directory, or no usable checkpoint in it.
    """
    net, config, _ = trained_network(run)
    return torch_contestant(name, net, bool(config.get("plain")), sha256_of(run / "checkpoint.pt"))


def packaged_regressor(name: str, folder: Path) -> Contestant:
    """A packaged regressor, in torch: the engines' sampler would give it noise that it never met.

    Raises:
        ModelError: the folder is damaged.
    """
    manifest = load_manifest(folder)
    weights = manifest.verified_file("weights")
    return torch_contestant(name, load_denoiser(weights, dict(manifest.network)), True, sha256_of(weights))


def open_regressor(path: Path | None) -> list[Contestant]:
    """Our plain regressor: the run directory (or its checkpoint.pt) or the model folder of ``distill --plain true``.

    Raises:
        ConfigError: nothing usable at the path, or a network that was trained with noise.
    """
    if path is None:
        return []
    folder = path.parent if path.name == "checkpoint.pt" else path
    if not folder.is_dir():
        raise ConfigError(f"--regressor {path}: expected a run directory or a model folder, found none")
    packaged = (folder / MANIFEST_NAME).is_file()
    config = load_manifest(folder).training.get("config", {}) if packaged else trained_network(folder)[1]
    if not config.get("plain"):
        raise ConfigError(f"--regressor {path}: not a plain regressor; train one with: export.distill --plain true")
    return [packaged_regressor(REGRESSOR, folder) if packaged else trained_run(REGRESSOR, folder)]


@contextmanager
def open_compared(pairs: list[str], engine: str) -> Iterator[list[Contestant]]:
    """Other networks, each given as NAME=PATH: a model folder, a run directory or its checkpoint.pt.

    Raises:
        ConfigError: not such a pair, or nothing usable at the path.
    """
    opened, contestants = [], []
    try:
        for pair in pairs:
            name, sign, text = pair.partition("=")
            path = Path(text).parent if text.endswith("checkpoint.pt") else Path(text)
            if not sign or not name or not path.is_dir():
                raise ConfigError(f"--compare {pair}: expected NAME=PATH of a model folder or of a run directory")
            if not (path / MANIFEST_NAME).is_file():
                contestants.append(trained_run(name, path))
                continue
            opened.append(open_restorer(path, engine))
            contestants += model_contestants(opened[-1], name)
        yield contestants
    finally:
        for restorer in opened:
            restorer.close()


def model_contestants(restorer: Restorer, name: str) -> list[Contestant]:
    """A model with each number of steps that it offers."""

    def with_steps(steps: int) -> Restore:
        return lambda face: restorer.restore(face[None], steps)[0]

    version = model_version(restorer)
    return [Contestant(f"{name}, steps {n}", with_steps(n), version=version) for n in restorer.manifest.steps]


def model_version(restorer: Restorer) -> str:
    """What decides a model's pictures."""
    return f"{restorer.manifest.files['onnx'].sha256} {restorer.engine} {restorer.precision}"
