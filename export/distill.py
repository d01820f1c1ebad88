"""Train the few-step student: ``python -m export.distill FACES RUN --vgg WEIGHTS``; the same command again resumes.

One network serves 1, 2 and 4 steps. It learns its first step (t = 1) from degraded faces and every later step from
states that it made itself, as it will meet them at run time: a state mixed from the truth would leak the answer.
Pixels are learnt first, and with ``--teacher RUN`` also where the teacher's many steps end; perceptual features and,
late, a patch discriminator look at crops of eyes, mouth and skin. ``--plain true`` trains the regressor that every
diffusion model has to beat: the same network, one step, no noise.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from export.commands import (
    perceptual_net,
    recognition_net,
    resolved_config,
    run_training,
    trained_network,
    training_parser,
)
from export.dataset import FaceSet
from export.loop import Batch, LoopConfig
from export.losses import (
    PatchDiscriminator,
    channels_last,
    charbonnier,
    chroma,
    excess_power,
    grid,
    hinge_discriminator,
    hinge_generator,
    laplacian,
)
from export.ranks import Ranks
from export.runs import run_command
from export.teacher_sampler import sample_posterior
from export.validation import Measure, Validation, denoiser_of
from idm_rt.diffusion import bridge_state, sample, time_grid
from idm_rt.errors import ConfigError
from idm_rt.network import DenoiserConfig, DenoiserNet

DETAIL_CENTRES = ((90, 107), (166, 107), (128, 185), None)  # eyes, mouth, anywhere: (x, y) px in the crop


@dataclass(frozen=True, slots=True)
class DistillConfig(LoopConfig):
    """Everything that decides a student's run."""

    plain: bool = False  # the regressor: one step, no noise
    chroma_weight: float = 2.0
    grid_weight: float = 5.0
    laplacian_weight: float = 0.5
    excess_weight: float = 1.0
    endpoint_weight: float = 0.5  # distance to where the teacher's sampler ends; used if there is a teacher
    teacher_steps: int = 15
    perceptual_weight: float = 1.0
    perceptual_from: int = 0  # sample at which it sets in
    perceptual_stages: int = 3
    refinement_gain: float = 1.0  # how much more the perceptual term counts at later steps: they are there for detail
    gan_weight: float = 0.01
    gan_from: int = 36_000
    identity_weight: float = 0.0  # on whole faces, not crops; needs a recogniser
    identity_share: float = 0.5  # share of the batch whose identity is looked at: the recogniser is slow on a CPU
    idempotence_weight: float = 0.0
    temporal_weight: float = 0.0  # two frames of one face shall be restored alike
    detail_px: int = 112  # side of the crops that the perceptual network and the discriminator see
    detail_share: float = 0.5  # share of the batch that the costly terms see


TINY = DistillConfig(
    samples=48, batch=4, warm_up=8, perceptual_weight=0.0, gan_from=32, ema_samples=16, validate_every=24,
    pair_window=48, workers=0, network=DenoiserConfig(channels=(16, 16), blocks=(1, 1)).to_dict(),
)  # fmt: skip
PRESETS = {
    "cpu": DistillConfig(),
    "gpu": DistillConfig(
        samples=3_000_000, batch=64, warm_up=20_000, ema_samples=100_000, precision="bf16", validate_every=150_000,
        pair_window=4_000, pair_reuse=24, workers=14, gan_from=1_500_000, idempotence_weight=0.1, temporal_weight=0.2,
        perceptual_stages=4, detail_px=128,
    ),
    "tiny": TINY,
}  # fmt: skip


def draw_step(rng: np.random.Generator) -> tuple[int, int]:
    """(steps, index): which evaluation of which sampler is trained; the first step most often."""
    steps = int(rng.choice([1, 2, 4], p=[0.6, 0.25, 0.15]))
    return steps, int(rng.integers(steps))


def unit_noise(like: Tensor) -> Tensor:
    """Normal noise of the shape, device and layout of ``like`` (N, C, H, W); on a CPU torch draws it 7 times as fast
    in the plain layout."""
    return torch.randn(like.shape, device=like.device).contiguous(memory_format=torch.channels_last)


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


class DistillObjective:
    """What the student learns; see the module's text."""

    def __init__(
        self,
        config: DistillConfig,
        val: FaceSet,
        vgg: Measure | None = None,
        teacher: DenoiserNet | None = None,
        ranks: Ranks | None = None,
        identity: Measure | None = None,
    ) -> None:
        self.config, self.vgg, self.identity, self.ranks = config, vgg, identity, ranks or Ranks()
        self.teacher = teacher.to(self.ranks.device).requires_grad_(False) if teacher is not None else None
        with torch.random.fork_rng():
            torch.manual_seed(config.seed)
            self.critic = channels_last(PatchDiscriminator()).to(self.ranks.device)
        self.critic_optimizer = torch.optim.AdamW(self.critic.parameters(), 2e-4, betas=(0.5, 0.99))
        self.validation = Validation(val, self.ranks.device)
        self.previous_frames = config.temporal_weight > 0

    def parts(self) -> Mapping[str, Any]:
        """The discriminator and its optimiser."""
        return {"critic": self.critic, "critic_optimizer": self.critic_optimizer}

    def losses(self, net: DenoiserNet, batch: Batch, seen: int) -> dict[str, Tensor]:
        """One draw of step, noise and details; the terms that are switched on."""
        config, (clean, y) = self.config, batch[:2]
        rng = np.random.default_rng([config.seed, 3, seen, self.ranks.rank])
        eps = torch.zeros_like(y) if config.plain else unit_noise(y)
        steps, index = (1, 0) if config.plain else draw_step(rng)
        state, t = state_at(net, y, eps, steps, index)
        estimate = denoiser_of(net)(state, y, t).float()
        part = max(1, round(len(y) * config.detail_share))
        terms = {"pixel": charbonnier(estimate, clean)}
        if config.grid_weight:
            terms["grid"] = config.grid_weight * grid(estimate, clean, net.config.fold)
        if config.laplacian_weight:
            terms["laplacian"] = config.laplacian_weight * laplacian(estimate, clean)
        if config.chroma_weight:
            terms["chroma"] = config.chroma_weight * chroma(estimate, clean)
        if config.excess_weight:
            terms["excess"] = config.excess_weight * excess_power(estimate[:part], clean[:part])
        if self.teacher is not None:
            end = sample_posterior(denoiser_of(self.teacher), y[:part], config.teacher_steps)
            terms["endpoint"] = config.endpoint_weight * charbonnier(estimate[:part], end)
        if self.identity is not None and config.identity_weight:
            seen_faces = max(1, round(len(y) * config.identity_share))
            terms["identity"] = config.identity_weight * self.identity(estimate[:seen_faces], clean[:seen_faces]).mean()
        if config.idempotence_weight:
            terms["idempotence"] = config.idempotence_weight * idempotence(net, estimate[:part], eps[:part])
        if config.temporal_weight and t == 1.0:
            before = denoiser_of(net)(bridge_state(batch[2], batch[2], eps, 1.0)[:part], batch[2][:part], 1.0)
            terms["temporal"] = config.temporal_weight * charbonnier(before.float(), estimate[:part])
        gain = config.refinement_gain if index else 1.0
        return {**terms, **self._detail_terms(estimate[:part], clean[:part], y[:part], seen, gain, rng)}

    def _detail_terms(
        self, estimate: Tensor, clean: Tensor, y: Tensor, seen: int, gain: float, rng: np.random.Generator
    ) -> dict[str, Tensor]:
        config, terms = self.config, {}
        detail, truth, degraded = detail_crops([estimate, clean, y], config.detail_px, rng)
        if self.vgg is not None and config.perceptual_weight and seen >= config.perceptual_from:
            terms["perceptual"] = gain * config.perceptual_weight * self.vgg(detail, truth).mean()
        if config.gan_weight and seen >= config.gan_from:
            terms["_critic"] = self._critic_step(detail.detach(), truth, degraded)
            ramp = min(1.0, (seen - config.gan_from) / (0.1 * config.samples))
            terms["gan"] = ramp * config.gan_weight * hinge_generator(self.critic(detail, degraded))
        return terms

    def _critic_step(self, fake: Tensor, real: Tensor, degraded: Tensor) -> Tensor:
        loss = hinge_discriminator(self.critic(real, degraded), self.critic(fake, degraded))
        self.critic_optimizer.zero_grad(set_to_none=True)
        loss.backward()
        self.ranks.mean(parameter.grad for parameter in self.critic.parameters())
        self.critic_optimizer.step()
        return loss.detach()

    def validate(self, net: DenoiserNet, sheet: Path) -> dict[str, float]:
        """PSNR, vgg-hed and identity (1 - cosine) of the input and of 1 and 4 steps (the regressor: 1)."""
        eps = torch.zeros_like(self.validation.eps) if self.config.plain else self.validation.eps
        denoiser = denoiser_of(net)
        restore: dict[str, Callable[[Tensor], Tensor]] = {"x1": lambda y: sample(denoiser, y, eps, 1)}
        if not self.config.plain:
            restore["x4"] = lambda y: sample(denoiser, y, eps, 4)
        networks = {"vgg": self.vgg, "identity": self.identity}
        return self.validation.run(restore, {key: net for key, net in networks.items() if net is not None}, sheet)


def idempotence(net: DenoiserNet, restored: Tensor, eps: Tensor) -> Tensor:
    """A restored face, given again, shall be left alone (progressive fixed point, CFRNet, 2026)."""
    given = restored.detach().clamp(-1, 1)
    return charbonnier(denoiser_of(net)(bridge_state(given, given, eps, 1.0), given, 1.0).float(), given)


def main(argv: list[str] | None = None) -> int:
    """Command line; returns the exit status."""
    parser = training_parser("python -m export.distill", __doc__, PRESETS)
    parser.add_argument("--recogniser", type=Path, metavar="FILE", help="mobilefacenet.json for the identity loss")
    parser.add_argument("--teacher", type=Path, metavar="RUN", help="run directory of export.train_teacher")
    args = parser.parse_args(argv)

    def objective(config: DistillConfig, val: FaceSet, ranks: Ranks) -> DistillObjective:
        if args.teacher is not None and config.plain:
            raise ConfigError("--plain true trains without a teacher; leave out --teacher")
        vgg = perceptual_net(args.vgg, config.perceptual_stages, config.perceptual_weight, ranks.device)
        identity = recognition_net(args.recogniser, config.identity_weight, ranks.device)
        teacher = trained_network(args.teacher)[0] if args.teacher is not None else None
        return DistillObjective(config, val, vgg, teacher, ranks, identity)

    return run_command(lambda: run_training(args, resolved_config(args, PRESETS), objective))


if __name__ == "__main__":
    raise SystemExit(main())
