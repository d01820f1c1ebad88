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


class PairStream(IterableDataset[tuple[Tensor, Tensor]]):
    """An endless, reproducible stream of (clean, degraded) uint8 tensors (3, 256, 256).

    An encoder round trip costs as much as a training step, so each degraded pair is used about ``reuse`` times: sample
    ``i`` is a random one of the ``window`` newest pairs, where a new pair appears every ``reuse`` samples. What sample
    ``i`` is depends on the seed and on ``i`` alone, so a resumed run sees what an uninterrupted one would have seen.
    """

    def __init__(self, faces: FaceSet, seed: int, start: int = 0, reuse: int = 3, window: int = 1500) -> None:
        super().__init__()
        self.faces, self.seed, self.start, self.reuse, self.window = faces, seed, start, reuse, window

    def pair(self, pair_id: int) -> FacePair:
        """The pair with this number, made anew."""
        rng = np.random.default_rng([self.seed, 1, pair_id])
        index = int(rng.choice(len(self.faces.canvases), p=self.faces.weights))
        return degrade(self.faces.canvases[index].numpy(), LEVELS["train"], rng)

    def pair_id(self, index: int) -> int:
        """Which pair sample ``index`` uses."""
        newest = index // self.reuse + self.window // 4
        rng = np.random.default_rng([self.seed, 2, index])
        return int(rng.integers(max(0, newest - self.window), newest))

    def __iter__(self) -> Iterator[tuple[Tensor, Tensor]]:
        info = torch.utils.data.get_worker_info()
        worker, workers = (info.id, info.num_workers) if info else (0, 1)
        cv2.setNumThreads(1)
        cache: OrderedDict[int, FacePair] = OrderedDict()
        index = self.start + worker
        while True:
            key = self.pair_id(index)
            if key not in cache:
                cache[key] = self.pair(key)
                if len(cache) > self.window:
                    cache.pop(min(cache))
            yield to_chw(cache[key].clean), to_chw(cache[key].degraded)
            index += workers


def to_chw(image: RgbImage) -> Tensor:
    """(H, W, 3) uint8 array -> (3, H, W) uint8 tensor."""
    return torch.from_numpy(np.ascontiguousarray(image.transpose(2, 0, 1)))


def to_unit(batch: Tensor) -> Tensor:
    """uint8 0..255 -> float -1..1, channels last."""
    return batch.float().div_(127.5).sub_(1.0).contiguous(memory_format=torch.channels_last)


def training_loader(faces: FaceSet, batch: int, seed: int, start: int, window: int, workers: int) -> DataLoader:
    """Batches of (clean, degraded) from sample ``start`` on."""
    stream = PairStream(faces, seed, start, window=window)
    own = torch.Generator()  # else opening the loader would advance the generator that the training noise comes from
    if not workers:
        return DataLoader(stream, batch_size=batch, generator=own)
    # spawn: a forked child inherits OpenCV's and torch's thread pools in a locked state and hangs
    return DataLoader(
        stream,
        batch_size=batch,
        generator=own,
        num_workers=workers,
        prefetch_factor=4,
        multiprocessing_context="spawn",
    )


def evaluation_pairs(faces: FaceSet, level: str, limit: int | None = None) -> Iterator[tuple[FaceRecord, FacePair]]:
    """A fixed set: the same faces, faults and codecs every time; each face is degraded by its own seed."""
    for record, canvas in list(zip(faces.records, faces.canvases, strict=True))[:limit]:
        seed = int.from_bytes(hashlib.sha256(f"{level}:{record.photo}".encode()).digest()[:8], "little")
        yield record, degrade(canvas.numpy(), LEVELS[level], np.random.default_rng(seed), augment=False)
