"""What a plan depends on: with any of it changed, the plan is another one."""

from __future__ import annotations

import hashlib
import json
import platform
from dataclasses import asdict, dataclass
from typing import Any

from idm_rt.backends.nvidia import Gpu
from idm_rt.backends.trt.library import Flavour
from idm_rt.backends.trt.network import PROFILES
from idm_rt.errors import EngineError
from idm_rt.model_manifest import ModelManifest

SCHEMA = 1  # of the step graph and of the builder's settings: raise it when either changes
PRECISION = "fp16"
_ANY = "any"  # in the place of the GPU, for plans that run on every GPU


@dataclass(frozen=True, slots=True)
class PlanKey:
    """One plan. The number of diffusion steps is not in it: a plan holds one step."""

    schema: int
    engine: str
    version: str  # of the library
    model: str
    model_sha256: str  # of the fp16 ONNX file
    size: int  # S, side of the crops in px
    precision: str
    profiles: tuple[tuple[int, int, int], ...]
    gpu: str
    compute_capability: str
    driver: str
    os: str
    arch: str

    @property
    def digest(self) -> str:
        """64 hexadecimal digits that stand for the whole key."""
        return hashlib.sha256(json.dumps(self.to_dict(), sort_keys=True).encode()).hexdigest()

    @property
    def file_name(self) -> str:
        """Name of the plan's file."""
        return f"{self.model}-{self.digest[:16]}.plan"

    def to_dict(self) -> dict[str, Any]:
        """Plain values, ready for JSON."""
        return {**asdict(self), "profiles": [list(profile) for profile in self.profiles]}


def plan_key(flavour: Flavour, version: str, manifest: ModelManifest, gpu: Gpu | None) -> PlanKey:
    """The key of a model's plan on this machine.

    Args:
        flavour: which TensorRT.
        version: of the installed library.
        gpu: None where there is none: only portable plans can be built then.

    Raises:
        EngineError: no GPU, and the plans are tied to one; or the model comes without an fp16 file.
    """
    if "onnx_fp16" not in manifest.files:
        raise EngineError(f"model {manifest.name!r} comes without the onnx_fp16 file that {flavour.engine} needs")
    if gpu is None and not flavour.portable:
        raise EngineError(f"no NVIDIA GPU was found here; a plan of {flavour.engine} is built on the GPU it runs on")
    tied = gpu if gpu is not None and not flavour.portable else None
    return PlanKey(
        schema=SCHEMA,
        engine=flavour.engine,
        version=version,
        model=manifest.name,
        model_sha256=manifest.files["onnx_fp16"].sha256,
        size=manifest.crop_size,
        precision=PRECISION,
        profiles=PROFILES,
        gpu=tied.name if tied else _ANY,
        compute_capability=tied.compute_capability if tied else _ANY,
        driver=tied.driver if tied else _ANY,
        os=platform.system(),
        arch=platform.machine(),
    )
