"""The training loop that teacher and student share: optimisers, averaged weights, checkpoints, statistics.

What is learnt is an ``Objective``'s business. A killed run goes on where its last checkpoint was, on a CPU to the bit.
"""

from __future__ import annotations

import json
import time
from collections import defaultdict
from collections.abc import Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor, nn
from tqdm import tqdm

from export.checkpoints import load_checkpoint
from export.dataset import FaceSet, StreamPlan, to_unit, training_loader
from export.losses import channels_last
from export.muon import Muon, split_parameters
from export.plots import plot_stats
from export.ranks import Ranks
from export.runs import RunDirectory, moved_into_place
from export.widen import widened_state
from idm_rt.errors import ConfigError, IdmError
from idm_rt.network import DenoiserConfig, DenoiserNet

Batch = tuple[Tensor, ...]  # clean, degraded and, if asked for, the frame before: (N, 3, S, S) in -1..1


@dataclass(frozen=True, slots=True)
class LoopConfig:
    """What every training needs to know."""

    samples: int = 60_000  # training ends after this many
    batch: int = 4  # per process; small on a CPU: a sample costs the same in any batch, more updates learn faster
    learning_rate: float = 8e-4
    warm_up: int = 400  # samples
    cool_down: float = 0.35  # last share of the run in which the rate falls to zero
    ema_samples: float = 4_000.0  # the averaging's half-life grows to this
    precision: str = "f32"  # or bf16: autocast
    validate_every: int = 4_000
    pair_window: int = 1_500  # see export.dataset.PairStream
    pair_reuse: int = 3
    workers: int = 1  # processes that degrade faces; 0 = the training process itself
    start_from: str = ""  # SHA-256 of the checkpoint whose networks this run began with, "" = from scratch
    seed: int = 1
    network: dict[str, Any] = field(default_factory=lambda: DenoiserConfig().to_dict())

    def __post_init__(self) -> None:
        if self.precision not in ("f32", "bf16"):
            raise ConfigError(f"precision {self.precision!r} is unknown; choose f32 or bf16")


class Objective(Protocol):
    """What a network learns."""

    previous_frames: bool  # whether batches need the frame before

    def parts(self) -> Mapping[str, Any]:
        """Further modules and optimisers that belong into the checkpoint."""
        ...

    def losses(self, net: DenoiserNet, batch: Batch, seen: int) -> dict[str, Tensor]:
        """The terms whose sum is descended; a name with a leading underscore is only logged."""
        ...

    def validate(self, net: DenoiserNet, sheet: Path) -> dict[str, float]:
        """Figures on held-out faces, and a picture to look at."""
        ...


def learning_rate(config: LoopConfig, seen: int, step: int) -> float:
    """Linear warm-up, constant, linear cool-down; ``step``: samples of one update."""
    left = (config.samples - seen) / max(1.0, config.cool_down * config.samples)
    return config.learning_rate * min(1.0, (seen + step) / max(1, config.warm_up), max(0.01, left))


def averaging(config: LoopConfig, seen: int, step: int) -> float:
    """How much of the averaged weights an update of ``step`` samples keeps; short memory while all is new."""
    return float(0.5 ** (step / min(config.ema_samples, 0.25 * seen + step)))


def checkpoint_state(path: Path) -> dict[str, Any]:
    """A run's checkpoint.

    Raises:
        ConfigError: it cannot be read.
    """
    return load_checkpoint(path, "name the checkpoint.pt of another run")


def packaged_state(weights: Path) -> dict[str, Any]:
    """The same of a packaged model, whose manifest lies beside its weights.

    Raises:
        ConfigError: either cannot be read.
    """
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    try:
        seen = json.loads((weights.parent / "model.json").read_text())["training"]["samples_seen"]
        return {"ema": load_file(weights), "inherited": int(seen), "seen": 0}
    except (OSError, ValueError, KeyError, SafetensorError) as error:
        raise ConfigError(f"{weights} is no packaged model ({error}); name its model.safetensors") from error


class Loop:
    """State of a run: network, averaged network, optimisers, the objective's parts, and how far it got."""

    def __init__(
        self, config: LoopConfig, objective: Objective, faces: FaceSet, run: RunDirectory, ranks: Ranks | None = None
    ) -> None:
        self.config, self.objective, self.faces, self.run = config, objective, faces, run
        self.ranks = ranks or Ranks()
        torch.manual_seed(config.seed)  # before the networks: every rank starts with the same ones
        shape = DenoiserConfig.from_dict(config.network)
        self.net = channels_last(DenoiserNet(shape)).to(self.ranks.device)
        self.ema = channels_last(DenoiserNet(shape)).to(self.ranks.device).requires_grad_(False)
        self.ema.load_state_dict(self.net.state_dict())
        matrices, others = split_parameters(self.net)
        self.muon = Muon(matrices, config.learning_rate)
        self.optimizer = torch.optim.AdamW(others, config.learning_rate, betas=(0.9, 0.99))
        torch.manual_seed(config.seed + 1_000 * self.ranks.rank)  # noise of its own on every rank
        self.seen = 0
        self.inherited = 0  # samples that the networks had seen before this run
        self._started_s, self._resumed_at = 0.0, 0

    @property
    def step_samples(self) -> int:
        """Samples of one update, over all processes."""
        return self.config.batch * self.ranks.count

    def _parts(self) -> dict[str, Any]:
        own = {"net": self.net, "ema": self.ema, "muon": self.muon, "optimizer": self.optimizer}
        return {**own, **self.objective.parts()}

    def save(self) -> None:
        """Write the checkpoint."""
        state = {name: part.state_dict() for name, part in self._parts().items()}
        counts = {"seen": self.seen, "inherited": self.inherited, "torch_rng": torch.get_rng_state()}
        if self.ranks.device.type == "cuda":
            counts["cuda_rng"] = torch.cuda.get_rng_state()
        with moved_into_place(self.run.checkpoint) as path:
            torch.save({**counts, **state}, path)

    def resume(self) -> None:
        """Go on from the checkpoint if there is one.

        Raises:
            ConfigError: the checkpoint cannot be read.
        """
        if not self.run.checkpoint.is_file():
            return
        state = load_checkpoint(self.run.checkpoint, "delete it to start again")
        for name, part in self._parts().items():
            part.load_state_dict(state[name])
        self.seen, self.inherited = state["seen"], state["inherited"]
        if self.ranks.leads:
            torch.set_rng_state(state["torch_rng"])
            if "cuda_rng" in state and self.ranks.device.type == "cuda":
                torch.cuda.set_rng_state(state["cuda_rng"])

    def start_from(self, origin: Path) -> None:
        """Begin with another run's averaged network and its objective's modules.

        Args:
            origin: a run's checkpoint, or the weights (.safetensors) of a packaged model. A smaller network is widened.

        Raises:
            ConfigError: it cannot be read, or holds a network that does not fit into this one.
        """
        state = packaged_state(origin) if origin.suffix == ".safetensors" else checkpoint_state(origin)
        try:
            weights = widened_state(state["ema"], self.net)
            self.net.load_state_dict(weights)
            self.ema.load_state_dict(weights)
            for name, part in self.objective.parts().items():
                if isinstance(part, nn.Module) and name in state:
                    part.load_state_dict(state[name])
        except (ConfigError, RuntimeError) as error:
            raise ConfigError(f"{origin} holds another network ({error}); start from scratch") from error
        self.inherited = state["inherited"] + state["seen"]

    def autocast(self) -> AbstractContextManager[Any]:
        """The precision of the forward passes."""
        if self.config.precision == "f32":
            return nullcontext()
        return torch.autocast(self.ranks.device.type, torch.bfloat16)

    def step(self, batch: Batch) -> dict[str, float]:
        """One update on a batch of faces in -1..1; returns the loss terms."""
        with self.autocast():
            terms = self.objective.losses(self.net, batch, self.seen)
            loss = torch.stack([value.float() for name, value in terms.items() if name[0] != "_"]).sum()
        if not torch.isfinite(loss):
            raise IdmError(f"the loss is {loss.item()} after {self.seen} samples; lower --learning-rate and run again")
        self._update(loss)
        self.seen += self.step_samples
        return {name.lstrip("_"): float(value.detach()) for name, value in terms.items()}

    def _update(self, loss: Tensor) -> None:
        rate = learning_rate(self.config, self.seen, self.step_samples)
        for group in (*self.muon.param_groups, *self.optimizer.param_groups):
            group["lr"] = rate
        self.net.zero_grad(set_to_none=True)
        loss.backward()
        self.ranks.mean(parameter.grad for parameter in self.net.parameters())
        nn.utils.clip_grad_norm_(self.net.parameters(), 1.0)
        self.muon.step()
        self.optimizer.step()
        keep = averaging(self.config, self.seen, self.step_samples)
        with torch.no_grad():
            for average, value in zip(self.ema.parameters(), self.net.parameters(), strict=True):
                average.lerp_(value, 1.0 - keep)

    def batches(self) -> Any:
        """Iterator of batches on this run's device, from where the run is."""
        config = self.config
        plan = StreamPlan(
            batch=config.batch, seed=config.seed, window=config.pair_window, reuse=config.pair_reuse,
            lanes=max(1, config.workers) * self.ranks.count, previous=self.objective.previous_frames,
        )  # fmt: skip
        first = self.seen // config.batch + self.ranks.rank
        loader = training_loader(self.faces, plan, first, self.ranks.count, config.workers)
        for batch in loader:
            yield tuple(to_unit(part.to(self.ranks.device, non_blocking=True)) for part in batch)

    def train(self) -> None:
        """Run until ``config.samples`` are seen."""
        config, sums = self.config, defaultdict[str, list[float]](list)
        batches = self.batches()
        self._started_s, self._resumed_at = time.monotonic(), self.seen
        hidden = None if self.ranks.leads else True
        with tqdm(total=config.samples, initial=self.seen, unit="sample", desc="train", disable=hidden) as bar:
            while self.seen < config.samples:
                before = self.seen
                for name, value in self.step(next(batches)).items():
                    sums[name].append(value)
                bar.update(self.seen - before)
                if self.seen // config.validate_every > before // config.validate_every or self.seen >= config.samples:
                    self._report(sums)
                    sums.clear()

    def _report(self, sums: Mapping[str, list[float]]) -> None:
        if self.ranks.leads:
            rate = (self.seen - self._resumed_at) / (time.monotonic() - self._started_s)
            means = {name: round(float(np.mean(values)), 5) for name, values in sums.items()}
            with self.autocast():
                figures = self.objective.validate(self.ema, self.run.path / f"sheet-{self.seen:07d}.png")
            self.run.log({"seen": self.seen, "samples_per_s": round(rate, 2), **means, **figures})
            plot_stats(self.run.stats(), self.run.path / "losses.png")
            self.save()
        self.ranks.wait()
