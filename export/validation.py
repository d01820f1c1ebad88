"""A short look at a network during its training: figures on ``call-medium`` and a sheet of faces."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path

import cv2
import torch
from torch import Tensor

from export.dataset import FaceSet, evaluation_pairs, spread_faces, to_chw, to_unit
from export.runs import write_atomic
from idm_rt.diffusion import Denoiser
from idm_rt.network import DenoiserNet

Measure = Callable[[Tensor, Tensor], Tensor]  # two (N, 3, S, S) in -1..1 -> (N,)
SHOWN = 8
_PART = 8  # faces at a time


def denoiser_of(net: DenoiserNet) -> Denoiser:
    """The network as ``idm_rt.diffusion`` wants it."""
    return lambda x_t, y, t: net(x_t, y, torch.full((len(y),), t, device=y.device))


def psnr_db(a: Tensor, b: Tensor) -> Tensor:
    """Peak signal-to-noise ratio per picture, (N,) dB."""
    return -10 * torch.log10((a - b).square().mean((1, 2, 3)) / 4)


class Validation:
    """A fixed set of degraded faces, made once and kept."""

    def __init__(self, faces: FaceSet, device: torch.device, count: int = 24) -> None:
        pairs = [pair for _, pair in evaluation_pairs(spread_faces(faces, count), "call-medium")]
        self.clean = to_unit(torch.stack([to_chw(pair.clean) for pair in pairs]).to(device))
        self.degraded = to_unit(torch.stack([to_chw(pair.degraded) for pair in pairs]).to(device))
        noise = torch.randn(1, *self.degraded.shape[1:], generator=torch.Generator().manual_seed(0))
        self.eps = noise.to(device)
        self._input_figures: dict[str, float] = {}  # they never change

    @torch.no_grad()
    def run(
        self, restore: Mapping[str, Callable[[Tensor], Tensor]], measures: Mapping[str, Measure], sheet: Path
    ) -> dict[str, float]:
        """``{measure}_{name}`` for the input and for every way to restore it; writes the sheet.

        Args:
            restore: name -> function from degraded (N, 3, S, S) to restored.
            measures: name -> see ``Measure``; PSNR is always among them.
            sheet: PNG with one column per face: input, each restored, truth.
        """
        results = {"input": self.degraded}
        for name, function in restore.items():
            results[name] = torch.cat([function(part).float().clamp(-1, 1) for part in self.degraded.split(_PART)])
        out = {}
        for name, picture in results.items():
            if name != "input":
                out.update(self._figures(name, picture, measures))
            elif not self._input_figures:
                self._input_figures = self._figures(name, picture, measures)
        rows = [torch.cat(list(p[:SHOWN]), dim=2) for p in (*results.values(), self.clean)]
        shown = ((torch.cat(rows, dim=1) + 1) * 127.5).byte().permute(1, 2, 0).cpu().numpy()
        write_atomic(sheet, cv2.imencode(".png", shown[..., ::-1])[1].tobytes())
        return {**self._input_figures, **out}

    def _figures(self, name: str, picture: Tensor, measures: Mapping[str, Measure]) -> dict[str, float]:
        out = {}
        for key, measure in {"psnr": psnr_db, **measures}.items():
            parts = zip(picture.split(_PART), self.clean.split(_PART), strict=True)
            out[f"{key}_{name}"] = round(float(torch.cat([measure(a, b).float() for a, b in parts]).mean()), 4)
        return out
