"""Checkpoints of training runs: tensors and plain values only, read without running any code in them."""

from __future__ import annotations

from pathlib import Path
from pickle import UnpicklingError
from typing import Any

import torch

from idm_rt.errors import ConfigError


def load_checkpoint(path: Path, remedy: str) -> dict[str, Any]:
    """Read a checkpoint.

    Raises:
        ConfigError: missing, damaged or something else; ``remedy`` says what to do.
    """
    if not path.is_file():
        raise ConfigError(f"{path} is missing; {remedy}")
    try:
        state = torch.load(path, weights_only=True)
    except (RuntimeError, OSError, EOFError, KeyError, UnpicklingError) as error:
        raise ConfigError(f"{path} is damaged or no checkpoint ({type(error).__name__}); {remedy}") from error
    if not isinstance(state, dict) or not {"net", "ema", "seen", "inherited"} <= state.keys():
        raise ConfigError(f"{path} is no checkpoint of this training; {remedy}")
    return state
