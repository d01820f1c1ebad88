"""Options of the pipeline, validated once where they are made."""

from __future__ import annotations

import os
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from idm_rt.errors import ConfigError

STEPS = (1, 2, 4)
ENGINES = ("auto", "openvino", "onnxruntime", "torch", "tensorrt", "tensorrt-rtx")
PRECISIONS = ("auto", "f32", "bf16", "fp16", "int8")  # of the network's arithmetic; no engine has all
DEFAULT_MODEL = "idm-face-256"


@dataclass(frozen=True, slots=True)
class EnhancerConfig:
    """How faces are restored. ``None`` means "the default that fits this machine"."""

    steps: int = 1  # diffusion steps per face and frame: 1, 2 or 4
    strength: float = 1.0  # 0 returns the input bit for bit, 1 shows the whole correction
    engine: str = "auto"  # one of ENGINES
    precision: str = "auto"  # one of PRECISIONS; auto = what the engine is best with on this machine
    require_gpu: bool = False  # fail where the engine would run on the CPU, rather than fall back
    model: str | None = None  # name under engines/models or a folder with a model.json; None = DEFAULT_MODEL
    max_faces: int = 4  # faces restored per frame; the largest win
    min_face_px: float = 40.0  # faces whose larger box side is smaller than this stay as they are
    threads: int | None = None  # inference threads; None = all cores
    temporal: bool = True  # blend the correction over time (off for unrelated pictures)
    landmarker: Path | None = None  # a face_landmarker.task; None = cache, then download

    def __post_init__(self) -> None:
        if self.steps not in STEPS:
            raise ConfigError(f"steps is {self.steps!r}; choose one of {', '.join(map(str, STEPS))}")
        if not 0.0 <= self.strength <= 1.0:
            raise ConfigError(f"strength is {self.strength!r}; choose a number from 0 to 1")
        if self.engine not in ENGINES:
            raise ConfigError(f"engine is {self.engine!r}; choose one of {', '.join(ENGINES)}")
        if self.precision not in PRECISIONS:
            raise ConfigError(f"precision is {self.precision!r}; choose one of {', '.join(PRECISIONS)}")
        if not 1 <= self.max_faces <= 32:
            raise ConfigError(f"max_faces is {self.max_faces!r}; choose a whole number from 1 to 32")
        if self.min_face_px < 0:
            raise ConfigError(f"min_face_px is {self.min_face_px!r}; choose a number of pixels, 0 or more")
        if self.threads is not None and self.threads < 1:
            raise ConfigError(f"threads is {self.threads!r}; choose a whole number from 1")

    def to_dict(self) -> dict[str, Any]:
        """Plain values, ready for JSON."""
        return {k: str(v) if isinstance(v, os.PathLike) else v for k, v in asdict(self).items()}
