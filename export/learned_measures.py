"""LPIPS, DISTS and MUSIQ through the packages that hold them, where these and their weights can be had.

piq (Apache-2.0, extra ``perceptual``) has the first two, on VGG16. MUSIQ is in pyiqa alone, whose licence is
non-commercial and which asks for a second OpenCV: it is used where it is installed and belongs to no extra. Both fetch
their weights when first used; without a network a measure is named as absent and everything else goes on.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from idm_rt.types import RgbImage

Value = Callable[[RgbImage, RgbImage], float]  # of a picture and the truth


@dataclass(frozen=True, slots=True)
class LearnedMeasure:
    """A measure that a network learnt from people's opinions."""

    name: str
    value: Value
    alone: bool = False  # it looks at the picture and not at the truth


def open_lpips() -> LearnedMeasure:
    """Zhang et al., "The Unreasonable Effectiveness of Deep Features as a Perceptual Metric", CVPR 2018; VGG16."""
    import piq  # type: ignore[import-not-found, import-untyped, unused-ignore]

    return LearnedMeasure("lpips", _compared(piq.LPIPS()))


def open_dists() -> LearnedMeasure:
    """Ding et al., "Image Quality Assessment: Unifying Structure and Texture Similarity", TPAMI 2020."""
    import piq  # type: ignore[import-not-found, import-untyped, unused-ignore]

    return LearnedMeasure("dists", _compared(piq.DISTS()))


def open_musiq() -> LearnedMeasure:
    """Ke et al., "MUSIQ: Multi-scale Image Quality Transformer", ICCV 2021; 0 to 100, higher is better."""
    import pyiqa  # type: ignore[import-not-found, import-untyped, unused-ignore]

    net = pyiqa.create_metric("musiq", device="cpu")
    return LearnedMeasure("musiq", lambda picture, _: float(_plain(net, picture)), alone=True)


LEARNED: dict[str, tuple[Callable[[], LearnedMeasure], str]] = {
    "lpips": (open_lpips, "pip install 'idm-rt[perceptual]'"),
    "dists": (open_dists, "pip install 'idm-rt[perceptual]'"),
    "musiq": (open_musiq, "pip install pyiqa (non-commercial licence, in an environment of its own)"),
}


def open_learned(names: Sequence[str]) -> tuple[tuple[LearnedMeasure, ...], dict[str, str]]:
    """(the measures that could be opened, name -> one line why not of the others)."""
    opened, absent = [], {}
    for name in names:
        opener, cure = LEARNED[name]
        try:
            opened.append(opener())
        except ModuleNotFoundError as error:
            absent[name] = f"the package {error.name} is not installed; type: {cure}"
        except Exception as error:  # a failed download, a torchvision that does not fit torch: each raises its own kind
            reason = " ".join(str(error).split())[:200]
            absent[name] = f"its package or weights cannot be loaded here ({type(error).__name__}: {reason})"
    return tuple(opened), absent


def _compared(net: Callable[[Tensor, Tensor], Tensor]) -> Value:
    return lambda picture, truth: float(_plain(net, picture, truth))


@torch.no_grad()
def _plain(net: Callable[..., Tensor], *pictures: RgbImage) -> Tensor:
    """A network of (1, 3, H, W) in 0..1, on (H, W, 3) uint8 pictures."""
    planes = (torch.from_numpy(np.ascontiguousarray(p.transpose(2, 0, 1)))[None].float() / 255.0 for p in pictures)
    return net(*planes)
