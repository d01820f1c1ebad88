"""Command lines of the trainings: one option per setting of the configuration, presets, ``--dry-run``."""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable, Mapping
from dataclasses import asdict, fields, replace
from pathlib import Path
from typing import TypeVar

import torch

from export.checkpoints import load_checkpoint
from export.dataset import FaceSet, load_faces
from export.loop import Loop, LoopConfig, Objective
from export.losses import IdentityLoss, VggHed
from export.ranks import Ranks, join_ranks
from export.runs import RunDirectory
from idm_rt.errors import ConfigError
from idm_rt.model_files import sha256_of
from idm_rt.network import DenoiserConfig, DenoiserNet

ConfigType = TypeVar("ConfigType", bound=LoopConfig)

NO_OPTION = ("network", "start_from")  # settings that are not numbers or words


def training_parser(prog: str, description: str | None, presets: Mapping[str, ConfigType]) -> argparse.ArgumentParser:
    """FACES, RUN, what every training takes, and ``--some-setting`` for every setting."""
    parser = argparse.ArgumentParser(prog=prog, description=description)
    parser.add_argument("faces", type=Path, help="folder made by export.prepare")
    parser.add_argument("run", type=Path, help="run directory, new or to be resumed")
    parser.add_argument("--preset", choices=sorted(presets), default="cpu")
    parser.add_argument("--vgg", type=Path, help="VGG16-HED weights (safetensors) for the perceptual loss")
    parser.add_argument(
        "--start-from",
        type=Path,
        metavar="FILE",
        help="begin with the networks of another run's checkpoint.pt or of a packaged model.safetensors",
    )
    parser.add_argument("--device", choices=("auto", "cpu", "cuda"), default="auto")
    parser.add_argument("--threads", type=int, help="torch threads (default: all cores)")
    parser.add_argument("--dry-run", action="store_true", help="print the resolved configuration and stop")
    shape = parser.add_argument_group("shape of the network", "both or none; one number per level, finest first")
    shape.add_argument("--channels", type=int, nargs="+", metavar="INT")
    shape.add_argument("--blocks", type=int, nargs="+", metavar="INT")
    settings = parser.add_argument_group("settings", "each overrides the preset's value")
    for name, value in _options(presets["cpu"]).items():
        kind = _flag if isinstance(value, bool) else type(value)
        settings.add_argument(f"--{name.replace('_', '-')}", type=kind, metavar=type(value).__name__.upper())
    return parser


def resolved_config(args: argparse.Namespace, presets: Mapping[str, ConfigType]) -> ConfigType:
    """The preset with what the command line overrides.

    Raises:
        ConfigError: ``--start-from`` names no file, or the network's shape is none.
    """
    given = {name: getattr(args, name) for name in _options(presets["cpu"]) if getattr(args, name) is not None}
    if args.start_from is not None:
        if not args.start_from.is_file():
            raise ConfigError(f"{args.start_from} is missing; name a checkpoint.pt or model.safetensors")
        given["start_from"] = sha256_of(args.start_from)
    if args.channels or args.blocks:
        try:
            shape = DenoiserConfig(channels=tuple(args.channels or ()), blocks=tuple(args.blocks or ()))
        except ValueError as error:
            raise ConfigError(f"{error}; give --channels and --blocks one number per level each") from error
        given["network"] = shape.to_dict()
    return replace(presets[args.preset], **given)


def run_training(
    args: argparse.Namespace,
    config: ConfigType,
    make_objective: Callable[[ConfigType, FaceSet, Ranks], Objective],
) -> None:
    """Print the configuration (``--dry-run``), or train or resume.

    Raises:
        IdmError: see ``export.loop.Loop``.
    """
    if args.dry_run:
        print(json.dumps(asdict(config), indent=2))
        return
    if args.threads:
        torch.set_num_threads(args.threads)
    ranks = join_ranks(args.device)
    try:
        objective = make_objective(config, load_faces(args.faces, "val"), ranks)
        loop = Loop(config, objective, load_faces(args.faces, "train"), RunDirectory(args.run, asdict(config)), ranks)
        if args.start_from is not None and not loop.run.checkpoint.is_file():
            loop.start_from(args.start_from)
        loop.resume()
        loop.train()
    finally:
        ranks.close()


def perceptual_net(weights: Path | None, stages: int, weight: float, device: torch.device) -> VggHed | None:
    """The perceptual network, if weights are given.

    Raises:
        ConfigError: the loss is wanted and there are none.
    """
    if weights is None:
        if weight:
            raise ConfigError("the perceptual loss needs --vgg WEIGHTS; or switch it off with --perceptual-weight 0")
        return None
    return VggHed(weights, stages).to(device)


def recognition_net(recogniser: Path | None, weight: float, device: torch.device) -> IdentityLoss | None:
    """The identity loss, if a recogniser is given.

    Raises:
        ConfigError: the loss is wanted and there is none.
    """
    if recogniser is None:
        if weight:
            raise ConfigError("the identity loss needs --recogniser FILE; or switch it off with --identity-weight 0")
        return None
    return IdentityLoss(recogniser).to(device)


def trained_network(run: Path) -> tuple[DenoiserNet, dict[str, object], int]:
    """The averaged (EMA) network of a run, the run's configuration and the samples seen (earlier runs included).

    Raises:
        ConfigError: not a run directory, or no usable checkpoint in it.
    """
    if not (run / "config.json").is_file():
        raise ConfigError(f"{run} is not a training run: it holds no config.json; name a run directory")
    config = json.loads((run / "config.json").read_text())
    state = load_checkpoint(run / "checkpoint.pt", "train again")
    net = DenoiserNet(DenoiserConfig.from_dict(config["network"]))
    net.load_state_dict(state["ema"])
    return net.eval(), config, state["inherited"] + state["seen"]


def _options(config: LoopConfig) -> dict[str, object]:
    return {f.name: getattr(config, f.name) for f in fields(config) if f.name not in NO_OPTION}


def _flag(text: str) -> bool:
    if text not in ("true", "false"):
        raise argparse.ArgumentTypeError(f"found {text!r}, expected true or false")
    return text == "true"
