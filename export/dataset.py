"""Streams of clean/degraded pairs for training and fixed sets of them for evaluation."""

from __future__ import annotations

import hashlib
from collections import OrderedDict
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, IterableDataset
from tqdm import tqdm

from export.degradations import LEVELS, FacePair, degrade
from export.prepare import FaceRecord, read_records, read_rgb
from idm_rt.errors import ConfigError
from idm_rt.types import RgbImage

SOURCE_POWER = 0.6  # a source with n faces is drawn in proportion to n ** 0.6: official portraits are many and alike


@dataclass(frozen=True, slots=True)
class FaceSet:
    """The canvases of one split, in memory."""

    records: list[FaceRecord]
    canvases: Tensor  # (N, 384, 384, 3) uint8 in shared memory
    weights: np.ndarray  # (N,) sampling probabilities


def load_faces(folder: Path, split: str) -> FaceSet:
    """Read one split of a prepared data set.

    Raises:
        ConfigError: not a data set, an empty split, or a picture that is gone.
    """
    records = [record for record in read_records(folder) if record.split == split]
    if not records:
        raise ConfigError(f"{folder} has no faces in split {split!r}; prepare more photos")
    canvases = []
    for record in tqdm(records, desc=f"load {split}", unit="face", disable=None, leave=False):
        image = read_rgb(folder / record.file)
        if image is None:
            raise ConfigError(f"{folder / record.file} cannot be read; run export.prepare again")
        canvases.append(torch.from_numpy(image))
    sources = [record.source for record in records]
    weights = np.array([sources.count(source) ** (SOURCE_POWER - 1.0) for source in sources])
    return FaceSet(records, torch.stack(canvases).share_memory_(), weights / weights.sum())


def spread_faces(faces: FaceSet, count: int) -> FaceSet:
    """``count`` faces spread evenly over the set (all sources); fewer if it has fewer."""
    picked = np.linspace(0, len(faces.records) - 1, min(count, len(faces.records))).astype(int)
    weights = faces.weights[picked]
    return FaceSet([faces.records[i] for i in picked], faces.canvases[picked], weights / weights.sum())


@dataclass(frozen=True, slots=True)
class StreamPlan:
    """What decides a stream of training pairs."""

    batch: int
    seed: int
    window: int = 1_500  # newest pairs that samples are drawn from, per lane
    reuse: int = 3  # samples made of one degraded pair, about
    lanes: int = 1  # independent streams whose batches take turns; one per degrading process
    previous: bool = False  # also give the frame before


class PairStream(IterableDataset[tuple[Tensor, ...]]):
    """An endless, reproducible stream of (clean, degraded[, previous]) uint8 tensors (batch, 3, 256, 256).

    An encoder round trip costs as much as a training step, so each degraded pair is used about ``reuse`` times: a
    sample is a random one of the ``window`` newest pairs of its lane, where a new pair appears every ``reuse`` samples.
    Batch ``k`` belongs to lane ``k % lanes``. What it holds depends on the plan and on ``k`` alone, so a resumed run
    sees what an uninterrupted one would have seen.
    """

    def __init__(self, faces: FaceSet, plan: StreamPlan, first: int = 0, stride: int = 1) -> None:
        """Gives batches ``first``, ``first + stride``, ... (several GPUs: the rank, and how many there are)."""
        super().__init__()
        self.faces, self.plan, self.first, self.stride = faces, plan, first, stride

    def pair(self, lane: int, pair_id: int) -> FacePair:
        """The pair with this number, made anew."""
        rng = np.random.default_rng([self.plan.seed, 1, pair_id, lane])
        index = int(rng.choice(len(self.faces.canvases), p=self.faces.weights))
        return degrade(self.faces.canvases[index].numpy(), LEVELS["train"], rng)

    def pair_id(self, lane: int, index: int) -> int:
        """Which pair the ``index``-th sample of a lane uses."""
        newest = index // self.plan.reuse + max(1, self.plan.window // 4)
        rng = np.random.default_rng([self.plan.seed, 2, index, lane])
        return int(rng.integers(max(0, newest - self.plan.window), newest))

    def __iter__(self) -> Iterator[tuple[Tensor, ...]]:
        info = torch.utils.data.get_worker_info()
        worker, workers = (info.id, info.num_workers) if info else (0, 1)
        cv2.setNumThreads(1)
        caches: dict[int, OrderedDict[int, FacePair]] = {}
        number = self.first + worker * self.stride
        while True:
            lane, turn = number % self.plan.lanes, number // self.plan.lanes
            cache = caches.setdefault(lane, OrderedDict())
            pairs = [self._cached(cache, lane, turn * self.plan.batch + i) for i in range(self.plan.batch)]
            yield stacked(pairs, self.plan.previous)
            number += workers * self.stride

    def _cached(self, cache: OrderedDict[int, FacePair], lane: int, index: int) -> FacePair:
        key = self.pair_id(lane, index)
        if key not in cache:
            cache[key] = self.pair(lane, key)
            if len(cache) > self.plan.window:
                cache.pop(min(cache))
        return cache[key]


def stacked(pairs: list[FacePair], previous: bool) -> tuple[Tensor, ...]:
    """(clean, degraded[, previous]) uint8 tensors (N, 3, 256, 256)."""
    names = ("clean", "degraded", "previous") if previous else ("clean", "degraded")
    return tuple(torch.stack([to_chw(getattr(pair, name)) for pair in pairs]) for name in names)


def to_chw(image: RgbImage) -> Tensor:
    """(H, W, 3) uint8 array -> (3, H, W) uint8 tensor."""
    return torch.from_numpy(np.ascontiguousarray(image.transpose(2, 0, 1)))


def to_unit(batch: Tensor) -> Tensor:
    """uint8 0..255 -> float -1..1, channels last."""
    return batch.float().div_(127.5).sub_(1.0).contiguous(memory_format=torch.channels_last)


def training_loader(
    faces: FaceSet, plan: StreamPlan, first: int = 0, stride: int = 1, workers: int = 0
) -> Iterator[list[Tensor]]:
    """Batches ``first``, ``first + stride``, ... of the stream, made by ``workers`` processes (0: by this one)."""
    stream = PairStream(faces, plan, first, stride)
    own = torch.Generator()  # else opening the loader would advance the generator that the training noise comes from
    if not workers:
        return iter(DataLoader(stream, batch_size=None, generator=own))
    # spawn: a forked child inherits OpenCV's and torch's thread pools in a locked state and hangs
    return iter(
        DataLoader(
            stream,
            batch_size=None,
            generator=own,
            num_workers=workers,
            prefetch_factor=4,
            multiprocessing_context="spawn",
            pin_memory=torch.cuda.is_available(),
        )
    )


def evaluation_pair(record: FaceRecord, canvas: Tensor, level: str) -> FacePair:
    """A face of a fixed set: the same faults and codecs every time, by a seed of its own."""
    seed = int.from_bytes(hashlib.sha256(f"{level}:{record.photo}".encode()).digest()[:8], "little")
    return degrade(canvas.numpy(), LEVELS[level], np.random.default_rng(seed), augment=False)


def evaluation_pairs(faces: FaceSet, level: str, limit: int | None = None) -> Iterator[tuple[FaceRecord, FacePair]]:
    """A fixed set; see ``evaluation_pair``."""
    for record, canvas in list(zip(faces.records, faces.canvases, strict=True))[:limit]:
        yield record, evaluation_pair(record, canvas, level)
