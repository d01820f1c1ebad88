"""Train the many-step teacher: ``python -m export.train_teacher FACES RUN``; the same command again resumes.

A conditional bridge diffusion (``idm_rt.diffusion``) that estimates the clean face from any state between the degraded
and the clean one; the degraded face is the condition. It is larger than the student and is asked 10 to 25 times.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from export.commands import perceptual_net, resolved_config, run_training, training_parser
from export.dataset import FaceSet
from export.distill import detail_crops
from export.loop import Batch, LoopConfig
from export.losses import charbonnier
from export.ranks import Ranks
from export.runs import run_command
from export.teacher_sampler import sample_posterior
from export.validation import Measure, Validation
from idm_rt.diffusion import KAPPA
from idm_rt.network import DenoiserConfig, DenoiserNet


@dataclass(frozen=True, slots=True)
class TeacherConfig(LoopConfig):
    """Everything that decides a teacher's run."""

    steps: int = 15  # of its sampler, when it is looked at
    first_share: float = 0.3  # share of the samples at t = 1, where the sampler starts and most is decided
    perceptual_weight: float = 0.3
    perceptual_stages: int = 3
    detail_px: int = 112
    detail_share: float = 0.5


PRESETS = {
    "cpu": TeacherConfig(network=DenoiserConfig(channels=(48, 96, 160, 224), blocks=(1, 2, 2, 3)).to_dict()),
    "gpu": TeacherConfig(
        samples=3_000_000, batch=64, warm_up=20_000, ema_samples=100_000, precision="bf16", validate_every=150_000,
        pair_window=4_000, pair_reuse=24, workers=14, perceptual_stages=4, detail_px=128,
        network=DenoiserConfig(channels=(96, 192, 288, 384), blocks=(2, 3, 3, 4)).to_dict(),
    ),
    "tiny": TeacherConfig(
        samples=48, batch=4, warm_up=8, perceptual_weight=0.0, ema_samples=16, validate_every=24, pair_window=48,
        workers=0, steps=3, network=DenoiserConfig(channels=(16, 16), blocks=(1, 1)).to_dict(),
    ),
}  # fmt: skip


def mixed_states(clean: Tensor, y: Tensor, eps: Tensor, t: Tensor) -> Tensor:
    """Equation (1) of ``idm_rt.diffusion`` with a time per sample; t is (N,)."""
    t = t.view(-1, 1, 1, 1)
    return (1.0 - t) * clean + t * y + KAPPA * t.sqrt() * eps


def draw_times(count: int, first_share: float, rng: np.random.Generator) -> np.ndarray:
    """(N,) float32: 1 for a share of the samples, else uniform in (0, 1]."""
    times = 1.0 - rng.random(count)
    times[rng.random(count) < first_share] = 1.0
    return times.astype(np.float32)


class TeacherObjective:
    """The clean face from a state that was mixed from it (Delbracio and Milanfar, TMLR 2023, eq. 8)."""

    previous_frames = False

    def __init__(
        self, config: TeacherConfig, val: FaceSet, vgg: Measure | None = None, ranks: Ranks | None = None
    ) -> None:
        self.config, self.vgg, self.ranks = config, vgg, ranks or Ranks()
        self.validation = Validation(val, self.ranks.device)

    def parts(self) -> Mapping[str, Any]:
        """Nothing."""
        return {}

    def losses(self, net: DenoiserNet, batch: Batch, seen: int) -> dict[str, Tensor]:
        """Pixels, and perceptual features of a detail."""
        config, (clean, y) = self.config, batch[:2]
        rng = np.random.default_rng([config.seed, 3, seen, self.ranks.rank])
        t = torch.from_numpy(draw_times(len(y), config.first_share, rng)).to(y.device)
        estimate = net(mixed_states(clean, y, torch.randn_like(y), t), y, t).float()
        terms = {"pixel": charbonnier(estimate, clean)}
        if self.vgg is not None and config.perceptual_weight:
            part = max(1, round(len(y) * config.detail_share))
            detail, truth = detail_crops([estimate[:part], clean[:part]], config.detail_px, rng)
            terms["perceptual"] = config.perceptual_weight * self.vgg(detail, truth).mean()
        return terms

    def validate(self, net: DenoiserNet, sheet: Path) -> dict[str, float]:
        """PSNR and vgg-hed of the input, of one step and of the whole sampler."""

        def restore(y: Tensor, steps: int) -> Tensor:
            generator = torch.Generator(y.device).manual_seed(0)
            return sample_posterior(
                lambda x, c, t: net(x, c, torch.full((len(c),), t, device=c.device)), y, steps, generator
            )

        steps = self.config.steps
        ways = {"x1": lambda y: restore(y, 1), f"x{steps}": lambda y: restore(y, steps)}
        return self.validation.run(ways, {"vgg": self.vgg} if self.vgg is not None else {}, sheet)


def main(argv: list[str] | None = None) -> int:
    """Command line; returns the exit status."""
    args = training_parser("python -m export.train_teacher", __doc__, PRESETS).parse_args(argv)

    def objective(config: TeacherConfig, val: FaceSet, ranks: Ranks) -> TeacherObjective:
        vgg = perceptual_net(args.vgg, config.perceptual_stages, config.perceptual_weight, ranks.device)
        return TeacherObjective(config, val, vgg, ranks)

    return run_command(lambda: run_training(args, resolved_config(args, PRESETS), objective))


if __name__ == "__main__":
    raise SystemExit(main())
