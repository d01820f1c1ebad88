"""The bridge diffusion between a degraded and a clean face, and its few-step sampler.

Time t runs from 1 (degraded) to 0 (clean). A state mixes both ends and carries a little noise:

    x_t = (1 - t) x_0 + t y + kappa sqrt(t) eps                                         (1)

which is the marginal of residual shifting (Yue et al., "ResShift", NeurIPS 2023, eq. 1-2, with eta_t = t) and, for
kappa = 0, of "Inversion by Direct Iteration" (Delbracio and Milanfar, TMLR 2023, eq. 7). The denoiser estimates x_0
from (x_t, y, t). Starting at x_1 = y + kappa eps, a step to s < t re-mixes its estimate by (1). eps stays the same over
the steps and over the frames of a face track: fresh noise per frame would be flicker by construction.

Arrays may be numpy or torch: only operators are used. Pixel range is -1..1.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

KAPPA = 0.08  # standard deviation of the noise at t = 1, in pixel units of -1..1

Denoiser = Callable[[Any, Any, float], Any]  # (x_t, y, t) -> estimate of x_0, all (N, 3, S, S)


def time_grid(steps: int) -> list[float]:
    """Times at which the denoiser is evaluated: 1 -> [1], 2 -> [1, .5], 4 -> [1, .75, .5, .25].

    Raises:
        ValueError: steps < 1.
    """
    if steps < 1:
        raise ValueError(f"steps must be 1 or more, found {steps}")
    return [1.0 - i / steps for i in range(steps)]


def bridge_weights(t: float) -> tuple[float, float, float]:
    """What x_0, y and eps count in equation (1): the only numbers that a step needs beside t."""
    return 1.0 - t, t, KAPPA * math.sqrt(t)


def bridge_state(x0: Any, y: Any, eps: Any, t: float) -> Any:
    """Equation (1): the state at time t."""
    a, b, c = bridge_weights(t)
    return a * x0 + b * y + c * eps


def sample(denoiser: Denoiser, y: Any, eps: Any, steps: int) -> Any:
    """Restore ``y`` in ``steps`` evaluations of the denoiser.

    Args:
        denoiser: see ``Denoiser``; an engine, a network and a test's lambda are interchangeable.
        y: (N, 3, S, S) degraded faces, -1..1.
        eps: unit normal noise, broadcastable to y; fixed per face track.
        steps: number of evaluations, 1 or more.

    Returns:
        (N, 3, S, S) estimate of the clean faces.
    """
    x0 = y
    for t in time_grid(steps):
        x0 = denoiser(bridge_state(x0, y, eps, t), y, t)
    return x0
