"""Train the few-step restorer: ``python -m export.train FACES RUN --vgg WEIGHTS``; the same command again resumes.

One network serves 1, 2 and 4 steps. It learns its first step (t = 1) from degraded faces and every later step from
states that it made itself, as it will meet them at run time: a state mixed from the truth would leak the answer.
Pixels are learnt first; perceptual features and, late, a patch discriminator look at crops of eyes, mouth and skin.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
from torch import Tensor, nn
from tqdm import tqdm

from export.checkpoints import load_checkpoint
from export.dataset import FaceSet, evaluation_pairs, load_faces, spread_faces, to_chw, to_unit, training_loader
from export.losses import (
    IdentityLoss,
    PatchDiscriminator,
    VggHed,
    channels_last,
    charbonnier,
    hinge_discriminator,
    hinge_generator,
)
from export.muon import Muon, split_parameters
from export.runs import RunDirectory, moved_into_place, run_command, write_atomic
from idm_rt.diffusion import bridge_state, sample, time_grid
from idm_rt.errors import ConfigError, IdmError
from idm_rt.model_files import sha256_of
from idm_rt.network import DenoiserConfig, DenoiserNet

DETAIL_CENTRES = ((90, 107), (166, 107), (128, 185), None)  # eyes, mouth, anywhere: (x, y) px in the crop


@dataclass(frozen=True, slots=True)
class TrainConfig:
    """Everything that decides a run; the preset's values may be overridden one by one."""

    samples: int = 60_000  # training ends after this many
    batch: int = 4  # small: on a CPU a sample costs the same in any batch, and more updates learn faster
    learning_rate: float = 8e-4
    warm_up: int = 400  # samples
    cool_down: float = 0.35  # last share of the run in which the rate falls to zero
    ema_samples: float = 4_000.0  # averaging half-life grows to this
    perceptual_weight: float = 1.0
    perceptual_from: int = 0
    perceptual_stages: int = 3
    identity_weight: float = 0.0  # on whole estimates of ``detail_share`` of the batch; needs a recogniser
    gan_weight: float = 0.01
    gan_from: int = 36_000
    detail_px: int = 112  # side of the crops that the perceptual network and the discriminator see
    detail_share: float = 0.5  # share of the batch that they see
    validate_every: int = 4_000
    pair_window: int = 1_500  # see export.dataset.PairStream
    workers: int = 1  # processes that degrade faces; 0 = the training process itself
    start_from: str = ""  # SHA-256 of the checkpoint whose networks this run began with, "" = from scratch
    seed: int = 1
    network: dict[str, Any] = field(default_factory=lambda: DenoiserConfig().to_dict())


PRESETS = {
    "cpu": TrainConfig(),
    "tiny": TrainConfig(
        samples=48, batch=4, warm_up=8, perceptual_weight=0.0, gan_from=32, ema_samples=16, validate_every=24,
        pair_window=48, workers=0,
        network=DenoiserConfig(channels=(16, 16), blocks=(1, 1)).to_dict(),
    ),
}  # fmt: skip


OVERRIDABLE = (
    "samples", "batch", "learning_rate", "perceptual_weight", "perceptual_from", "identity_weight", "gan_weight",
    "gan_from", "seed",
)  # fmt: skip


def denoiser_of(net: DenoiserNet) -> Callable[[Tensor, Tensor, float], Tensor]:
    """The network as ``idm_rt.diffusion`` wants it."""
    return lambda x_t, y, t: net(x_t, y, torch.full((len(y),), t))


def draw_step(rng: np.random.Generator) -> tuple[int, int]:
    """(steps, index): which evaluation of which sampler is trained; the first step most often."""
    steps = int(rng.choice([1, 2, 4], p=[0.6, 0.25, 0.15]))
    return steps, int(rng.integers(steps))


def state_at(net: DenoiserNet, y: Tensor, eps: Tensor, steps: int, index: int) -> tuple[Tensor, float]:
    """The state that the sampler meets at its ``index``-th evaluation, made by the network itself, and its time."""
    grid = time_grid(steps)
    x0 = y
    with torch.no_grad():
        for t in grid[:index]:
            x0 = denoiser_of(net)(bridge_state(x0, y, eps, t), y, t)
    return bridge_state(x0, y, eps, grid[index]), grid[index]


def detail_crops(pictures: list[Tensor], size: int, rng: np.random.Generator) -> list[Tensor]:
    """The same random detail of each sample, cut from every tensor (N, C, H, W) of the list."""
    height, width = pictures[0].shape[-2:]
    corners = []
    for _ in range(len(pictures[0])):
        centre = DETAIL_CENTRES[int(rng.integers(len(DETAIL_CENTRES)))]
        x, y = centre or (int(rng.integers(width)), int(rng.integers(height)))
        x, y = x + int(rng.integers(-12, 13)) - size // 2, y + int(rng.integers(-12, 13)) - size // 2
        corners.append((min(max(x, 0), width - size), min(max(y, 0), height - size)))
    return [torch.stack([p[i, :, y : y + size, x : x + size] for i, (x, y) in enumerate(corners)]) for p in pictures]


class Trainer:
    """State of a run: network, averaged network, discriminator, optimisers and how far it got."""

    def __init__(
        self,
        config: TrainConfig,
        faces: FaceSet,
        val: FaceSet,
        run: RunDirectory,
        vgg: VggHed | None,
        identity: IdentityLoss | None = None,
    ) -> None:
        self.config, self.faces, self.val, self.run, self.vgg, self.identity = config, faces, val, run, vgg, identity
        torch.manual_seed(config.seed)
        shape = DenoiserConfig.from_dict(config.network)
        self.net = channels_last(DenoiserNet(shape))
        self.ema = channels_last(DenoiserNet(shape)).requires_grad_(False)
        self.ema.load_state_dict(self.net.state_dict())
        self.critic = channels_last(PatchDiscriminator())
        matrices, others = split_parameters(self.net)
        self.muon = Muon(matrices, config.learning_rate)
        self.optimizer = torch.optim.AdamW(others, config.learning_rate, betas=(0.9, 0.99))
        self.critic_optimizer = torch.optim.AdamW(self.critic.parameters(), 2e-4, betas=(0.5, 0.99))
        self.seen = 0
        self.inherited = 0  # samples that the networks had seen before this run
        self.started_s, self.resumed_at = 0.0, 0

    def _parts(self) -> dict[str, Any]:
        return {
            "net": self.net, "ema": self.ema, "critic": self.critic,
            "muon": self.muon, "optimizer": self.optimizer, "critic_optimizer": self.critic_optimizer,
        }  # fmt: skip

    def save(self) -> None:
        """Write the checkpoint."""
        state = {name: part.state_dict() for name, part in self._parts().items()}
        with moved_into_place(self.run.checkpoint) as path:
            counts = {"seen": self.seen, "inherited": self.inherited}
            torch.save({**counts, "torch_rng": torch.get_rng_state(), **state}, path)

    def resume(self) -> None:
        """Go on from the checkpoint if there is one.

        Raises:
            ConfigError: the checkpoint cannot be read.
        """
        if not self.run.checkpoint.is_file():
            return
        state = load_checkpoint(self.run.checkpoint, "delete it to start again")
        for name, part in self._parts().items():
            part.load_state_dict(state[name])
        self.seen, self.inherited = state["seen"], state["inherited"]
        torch.set_rng_state(state["torch_rng"])

    def start_from(self, checkpoint: Path) -> None:
        """Begin with another run's averaged network (and its discriminator), with fresh optimisers.

        Raises:
            ConfigError: the checkpoint cannot be read or holds another network.
        """
        state = load_checkpoint(checkpoint, "name the checkpoint.pt of another run")
        try:
            self.net.load_state_dict(state["ema"])
            self.ema.load_state_dict(state["ema"])
            self.critic.load_state_dict(state["critic"])
        except RuntimeError as error:
            raise ConfigError(f"{checkpoint} holds another network ({error}); start from scratch") from error
        self.inherited = state["inherited"] + state["seen"]

    def rate(self) -> float:
        """Learning rate now: linear warm-up, constant, linear cool-down."""
        config = self.config
        left = (config.samples - self.seen) / max(1.0, config.cool_down * config.samples)
        return config.learning_rate * min(1.0, (self.seen + config.batch) / max(1, config.warm_up), max(0.01, left))

    def step(self, clean: Tensor, y: Tensor) -> dict[str, float]:
        """One update on a batch of (N, 3, S, S) faces in -1..1; returns the loss terms."""
        config = self.config
        rng = np.random.default_rng([config.seed, 3, self.seen])
        state, t = state_at(self.net, y, torch.randn_like(y), *draw_step(rng))
        estimate = denoiser_of(self.net)(state, y, t)
        terms = {"pixel": charbonnier(estimate, clean)}
        part = max(1, round(len(y) * config.detail_share))
        detail, truth, degraded = detail_crops([estimate[:part], clean[:part], y[:part]], config.detail_px, rng)
        if self.vgg is not None and self.seen >= config.perceptual_from:
            terms["perceptual"] = config.perceptual_weight * self.vgg(detail, truth).mean()
        if self.identity is not None and config.identity_weight:
            terms["identity"] = config.identity_weight * self.identity(estimate[:part], clean[:part]).mean()
        if self.seen >= config.gan_from:
            self._critic_step(detail.detach(), truth, degraded, terms)
            ramp = min(1.0, (self.seen - config.gan_from) / (0.1 * config.samples))
            terms["gan"] = ramp * config.gan_weight * hinge_generator(self.critic(detail, degraded))
        loss = torch.stack([v for k, v in terms.items() if k != "critic"]).sum()
        if not torch.isfinite(loss):
            raise IdmError(f"the loss is {loss.item()} after {self.seen} samples; lower --learning-rate and run again")
        self._update(loss)
        self.seen += len(y)
        return {name: float(value.detach()) for name, value in terms.items()}

    def _critic_step(self, fake: Tensor, real: Tensor, degraded: Tensor, terms: dict[str, Tensor]) -> None:
        loss = hinge_discriminator(self.critic(real, degraded), self.critic(fake, degraded))
        self.critic_optimizer.zero_grad(set_to_none=True)
        loss.backward()
        self.critic_optimizer.step()
        terms["critic"] = loss.detach()

    def _update(self, loss: Tensor) -> None:
        for group in (*self.muon.param_groups, *self.optimizer.param_groups):
            group["lr"] = self.rate()
        self.net.zero_grad(set_to_none=True)
        loss.backward()
        nn.utils.clip_grad_norm_(self.net.parameters(), 1.0)
        self.muon.step()
        self.optimizer.step()
        window = min(self.config.ema_samples, 0.25 * self.seen + self.config.batch)
        keep = 0.5 ** (self.config.batch / window)
        with torch.no_grad():
            for average, value in zip(self.ema.parameters(), self.net.parameters(), strict=True):
                average.lerp_(value, 1.0 - keep)

    def train(self) -> None:
        """Run until ``config.samples`` are seen."""
        config = self.config
        loader = iter(
            training_loader(self.faces, config.batch, config.seed, self.seen, config.pair_window, config.workers)
        )
        sums: dict[str, list[float]] = {}
        self.started_s, self.resumed_at = time.monotonic(), self.seen
        with tqdm(total=config.samples, initial=self.seen, unit="sample", desc="train", disable=None) as bar:
            while self.seen < config.samples:
                clean, degraded = next(loader)
                before = self.seen
                for name, value in self.step(to_unit(clean), to_unit(degraded)).items():
                    sums.setdefault(name, []).append(value)
                bar.update(self.seen - before)
                if self.seen // config.validate_every > before // config.validate_every or self.seen >= config.samples:
                    self._report(sums)
                    sums = {}

    def _report(self, sums: dict[str, list[float]]) -> None:
        rate = (self.seen - self.resumed_at) / (time.monotonic() - self.started_s)
        row = {
            "seen": self.seen,
            "samples_per_s": round(rate, 2),
            **{name: round(float(np.mean(values)), 5) for name, values in sums.items()},
        }
        sheet = self.run.path / f"sheet-{self.seen:07d}.png"
        self.run.log({**row, **validate(self.ema, self.val, self.vgg, sheet, self.identity)})
        self.save()


@torch.no_grad()
def validate(
    net: DenoiserNet,
    faces: FaceSet,
    vgg: VggHed | None,
    sheet: Path,
    identity: IdentityLoss | None = None,
    count: int = 24,
) -> dict[str, float]:
    """PSNR, vgg-hed and 1 - cosine of identity on ``call-medium`` for the input, 1 and 4 steps.

    The last two need their networks. Writes a sheet of the first eight faces.
    """
    picked = spread_faces(faces, count)
    pairs = [pair for _, pair in evaluation_pairs(picked, "call-medium")]
    clean = to_unit(torch.stack([to_chw(pair.clean) for pair in pairs]))
    y = to_unit(torch.stack([to_chw(pair.degraded) for pair in pairs]))
    eps = torch.randn(1, *y.shape[1:], generator=torch.Generator().manual_seed(0))
    results = {
        "input": y,
        **{f"x{n}": torch.cat([sample(denoiser_of(net), p, eps, n) for p in y.split(8)]) for n in (1, 4)},
    }
    out = {}
    for name, picture in results.items():
        picture = picture.clamp(-1, 1)
        out[f"psnr_{name}"] = round(
            float((-10 * torch.log10((picture - clean).square().mean((1, 2, 3)) / 4)).mean()), 3
        )
        for key, measure in {"vgg": vgg, "identity": identity}.items():
            if measure is not None:
                pieces = zip(picture.split(8), clean.split(8), strict=True)
                out[f"{key}_{name}"] = round(float(torch.cat([measure(a, b) for a, b in pieces]).mean()), 4)
    rows = [torch.cat(list(p[:8]), dim=2) for p in (y, results["x1"], results["x4"], clean)]
    shown = ((torch.cat(rows, dim=1).clamp(-1, 1) + 1) * 127.5).byte().permute(1, 2, 0).numpy()
    write_atomic(sheet, cv2.imencode(".png", shown[..., ::-1])[1].tobytes())
    return out


def train(
    faces: Path,
    run: Path,
    config: TrainConfig,
    vgg_weights: Path | None,
    start_from: Path | None,
    recogniser: Path | None = None,
) -> None:
    """Train or resume; see the module's text."""
    if start_from is not None:
        if not start_from.is_file():
            raise ConfigError(f"{start_from} is missing; name the checkpoint.pt of another run")
        config = replace(config, start_from=sha256_of(start_from))
    if config.perceptual_weight and vgg_weights is None:
        raise ConfigError("the perceptual loss needs --vgg WEIGHTS; or switch it off with --perceptual-weight 0")
    if config.identity_weight and recogniser is None:
        raise ConfigError("the identity loss needs --recogniser FILE; or switch it off with --identity-weight 0")
    vgg = VggHed(vgg_weights, config.perceptual_stages) if vgg_weights else None
    identity = IdentityLoss(recogniser) if recogniser else None
    directory = RunDirectory(run, asdict(config))
    trainer = Trainer(config, load_faces(faces, "train"), load_faces(faces, "val"), directory, vgg, identity)
    if start_from is not None and not directory.checkpoint.is_file():
        trainer.start_from(start_from)
    trainer.resume()
    trainer.train()


def parse(argv: list[str] | None) -> tuple[argparse.Namespace, TrainConfig]:
    """Arguments and the configuration that they resolve to."""
    parser = argparse.ArgumentParser(prog="python -m export.train", description=__doc__)
    parser.add_argument("faces", type=Path, help="folder made by export.prepare")
    parser.add_argument("run", type=Path, help="run directory, new or to be resumed")
    parser.add_argument("--preset", choices=sorted(PRESETS), default="cpu")
    parser.add_argument("--vgg", type=Path, help="VGG16-HED weights (safetensors) for the perceptual loss")
    parser.add_argument("--recogniser", type=Path, metavar="FILE", help="mobilefacenet.json for the identity loss")
    parser.add_argument("--start-from", type=Path, metavar="CHECKPOINT", help="begin with another run's networks")
    parser.add_argument("--threads", type=int, help="torch threads (default: all cores)")
    parser.add_argument("--dry-run", action="store_true", help="print the resolved configuration and stop")
    for name in OVERRIDABLE:
        kind = type(getattr(PRESETS["cpu"], name))
        parser.add_argument(f"--{name.replace('_', '-')}", type=kind)
    args = parser.parse_args(argv)
    wanted = {name: value for name, value in vars(args).items() if name in OVERRIDABLE and value is not None}
    return args, replace(PRESETS[args.preset], **wanted)


def main(argv: list[str] | None = None) -> int:
    """Command line; returns the exit status."""
    args, config = parse(argv)
    if args.dry_run:
        print(json.dumps(asdict(config), indent=2))
        return 0
    if args.threads:
        torch.set_num_threads(args.threads)
    return run_command(lambda: train(args.faces, args.run, config, args.vgg, args.start_from, args.recogniser))


if __name__ == "__main__":
    raise SystemExit(main())
