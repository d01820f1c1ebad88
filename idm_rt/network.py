"""The denoiser network (torch). Only the torch backend and the training code import this file.

A norm-free U-Net on space-to-depth pixels: most of the cost of a small restorer at 256 px sits in its full-resolution
layers, so pixels are folded 4x4 at the input and unfolded only at the output. Normalisation and FiLM scaling cost as
much as the convolutions on a CPU; a per-channel shift from the time embedding is all the conditioning there is, and it
folds into a bias once t is fixed.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from idm_rt.errors import ModelError


@dataclass(frozen=True, slots=True)
class DenoiserConfig:
    """Shape of a ``DenoiserNet``; stored in the model's manifest."""

    channels: tuple[int, ...] = (64, 64, 128, 192)  # per level, finest first; multiples of 16 vectorise best
    blocks: tuple[int, ...] = (1, 2, 3, 3)  # residual blocks per level and side
    fold: int = 4  # pixels are folded fold x fold at the input
    embedding: int = 64  # width of the time embedding

    def __post_init__(self) -> None:
        if len(self.channels) != len(self.blocks) or not self.channels:
            raise ValueError(f"channels {self.channels} and blocks {self.blocks} must have equal, non-zero length")

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> DenoiserConfig:
        """The inverse of ``to_dict`` (lists become tuples)."""
        plain: dict[str, Any] = {k: tuple(v) if isinstance(v, list) else v for k, v in values.items()}
        return cls(**plain)

    def to_dict(self) -> dict[str, Any]:
        """Plain values, ready for JSON."""
        return {k: list(v) if isinstance(v, tuple) else v for k, v in asdict(self).items()}

    @property
    def size_multiple(self) -> int:
        """Height and width of the input must be multiples of this."""
        return self.fold * 2 ** (len(self.channels) - 1)


def keep_variance(conv: nn.Conv2d, following: Literal["relu", "linear"]) -> None:
    """He et al., ICCV 2015. Torch's default shrinks the signal to 0.58 per layer, which nothing here would repair."""
    nn.init.kaiming_normal_(conv.weight, nonlinearity=following)
    if conv.bias is not None:
        nn.init.zeros_(conv.bias)


def zero(conv: nn.Conv2d) -> None:
    """Start as if the layer were not there."""
    nn.init.zeros_(conv.weight)
    if conv.bias is not None:
        nn.init.zeros_(conv.bias)


class ResidualBlock(nn.Module):
    """Two 3x3 convolutions with a time-dependent shift between them; starts as the identity."""

    def __init__(self, channels: int, embedding: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(channels, channels, 3, padding=1)
        self.conv2 = nn.Conv2d(channels, channels, 3, padding=1)
        self.shift = nn.Linear(embedding, channels)
        keep_variance(self.conv1, "relu")
        zero(self.conv2)

    def forward(self, x: Tensor, e: Tensor) -> Tensor:
        h = self.conv1(x) + self.shift(e)[:, :, None, None]  # (N, C, h, w)
        return x + self.conv2(F.relu(h))


class Level(nn.Module):
    """Residual blocks of one resolution."""

    def __init__(self, channels: int, blocks: int, embedding: int) -> None:
        super().__init__()
        self.blocks = nn.ModuleList(ResidualBlock(channels, embedding) for _ in range(blocks))

    def forward(self, x: Tensor, e: Tensor) -> Tensor:
        for block in self.blocks:
            x = block(x, e)
        return x


class DenoiserNet(nn.Module):
    """Estimate of the clean face x_0 from a bridge state, the degraded face and the time.

    See ``idm_rt.diffusion`` for the process. Pixels are -1..1, time is 0..1.
    """

    def __init__(self, config: DenoiserConfig | None = None) -> None:
        super().__init__()
        self.config = config = config or DenoiserConfig()
        ch, width = config.channels, config.embedding
        self.time = nn.Sequential(nn.Linear(1, width), nn.SiLU(), nn.Linear(width, width), nn.SiLU())
        self.stem = nn.Conv2d(6 * config.fold**2, ch[0], 3, padding=1)
        self.encoder = nn.ModuleList(Level(c, b, width) for c, b in zip(ch, config.blocks, strict=True))
        self.down = nn.ModuleList(nn.Conv2d(a, b, 2, stride=2) for a, b in zip(ch[:-1], ch[1:], strict=True))
        self.up = nn.ModuleList(nn.Conv2d(b, 4 * a, 1) for a, b in zip(ch[:-1], ch[1:], strict=True))
        self.decoder = nn.ModuleList(Level(c, b, width) for c, b in zip(ch[:-1], config.blocks[:-1], strict=True))
        self.head = nn.Conv2d(ch[0], 3 * config.fold**2, 3, padding=1)
        for conv in (self.stem, *self.down, *self.up):
            keep_variance(conv, "linear")
        zero(self.head)

    def forward(self, x_t: Tensor, y: Tensor, t: Tensor) -> Tensor:
        """x_t, y: (N, 3, S, S) in -1..1; t: (N,) in 0..1 -> x_0 (N, 3, S, S), not clipped."""
        e = self.time(2.0 * t[:, None] - 1.0).to(y.dtype)  # (N, E)
        folded = F.pixel_unshuffle(torch.cat([x_t - y, y], dim=1), self.config.fold)  # (N, 96, S/4, S/4)
        h = self.stem(folded)  # (N, C0, S/4, S/4)
        skips = []
        for level, down in zip(self.encoder, self.down, strict=False):
            h = level(h, e)
            skips.append(h)
            h = down(h)  # halves h and w
        h = self.encoder[-1](h, e)
        for level, up in zip(reversed(self.decoder), reversed(self.up), strict=True):
            h = level(F.pixel_shuffle(up(h), 2) + skips.pop(), e)  # doubles h and w
        return y + F.pixel_shuffle(self.head(h), self.config.fold)  # (N, 3, S, S)


def load_denoiser(weights: Path, config: Mapping[str, Any]) -> DenoiserNet:
    """Read a network from a safetensors file; evaluation mode, f32.

    Raises:
        ModelError: the file does not fit the configuration.
    """
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    try:
        net = DenoiserNet(DenoiserConfig.from_dict(config))
    except (TypeError, ValueError) as error:
        raise ModelError(f"{dict(config)} is not a network of this version ({error}); use its own version") from error
    try:
        net.load_state_dict(load_file(weights))
    except (RuntimeError, OSError, SafetensorError) as error:
        raise ModelError(f"{weights} does not hold the network {dict(config)}: {error}") from error
    return net.eval()
