"""Many-step samplers of the bridge (``idm_rt.diffusion``), for a teacher that may take its time."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from idm_rt.diffusion import KAPPA, Denoiser, bridge_state


def posterior_step(x_t: Tensor, x0: Tensor, eps: Tensor, t: float, s: float) -> Tensor:
    """The state at s < t, given the one at t and an estimate of the clean face.

    The mean is that of ResShift (Yue et al., NeurIPS 2023, eq. 6-7, eta_t = t) and of InDI (Delbracio and Milanfar,
    TMLR 2023, eq. 10): a part s / t of the state is kept, so what earlier steps drew stays. ``eps`` is unit noise.
    """
    keep = s / t
    return keep * x_t + (1.0 - keep) * x0 + (KAPPA * math.sqrt(s * (t - s) / t)) * eps


@torch.no_grad()
def sample_posterior(denoiser: Denoiser, y: Tensor, steps: int, generator: torch.Generator | None = None) -> Tensor:
    """Restore ``y`` with fresh noise at every step.

    Args:
        denoiser: estimates x_0 from (x_t, y, t).
        y: (N, 3, S, S) degraded faces, -1..1.
        steps: evaluations, 1 or more; 10 to 25 is usual.
        generator: of the noise, on y's device; None = torch's own.
    """

    def noise() -> Tensor:
        return torch.randn(y.shape, generator=generator, device=y.device, dtype=y.dtype)

    x_t, x0 = bridge_state(y, y, noise(), 1.0), y
    for index in range(steps):
        t, s = 1.0 - index / steps, 1.0 - (index + 1) / steps
        x0 = denoiser(x_t, y, t)
        x_t = posterior_step(x_t, x0, noise(), t, s)
    return x0
