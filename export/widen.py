"""A larger network that begins as a trained smaller one: wider levels and more blocks, the same function.

As Net2Net (Chen et al., ICLR 2016), but new channels are drawn anew and not copied: what was there does not read them
at first (zero weights), so nothing changes, and no two channels have to be told apart by noise.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from idm_rt.errors import ConfigError
from idm_rt.network import DenoiserNet


def widened_state(trained: Mapping[str, Tensor], larger: DenoiserNet) -> dict[str, Tensor]:
    """State for ``larger``, as it was initialised, that makes it compute what the trained network computes.

    Args:
        trained: state of a network with the same number of levels and the same fold, none of its levels wider.
        larger: freshly initialised; it is not changed.

    Raises:
        ConfigError: the trained network does not fit into the larger one.
    """
    fresh = larger.state_dict()
    if unknown := sorted(trained.keys() - fresh.keys()):
        raise ConfigError(f"the larger network has no {unknown[0]}; give it as many levels and blocks, or more")
    return {name: _embedded(name, trained[name], value) if name in trained else value for name, value in fresh.items()}


def _embedded(name: str, old: Tensor, new: Tensor) -> Tensor:
    """``old`` in the corner of ``new``; its outputs read none of the new inputs."""
    if old.dim() != new.dim() or any(a > b for a, b in zip(old.shape, new.shape, strict=True)):
        raise ConfigError(f"{name} is {tuple(old.shape)} and does not fit into {tuple(new.shape)}")
    if old.shape[2:] != new.shape[2:]:
        raise ConfigError(f"{name} has kernels of another size, {tuple(old.shape)} and {tuple(new.shape)}")
    made = new.clone()
    rows = old.shape[0]
    if old.dim() == 1:
        made[:rows] = old
        return made
    made[:rows] = torch.zeros_like(made[:rows])
    made[:rows, : old.shape[1]] = old
    return made
