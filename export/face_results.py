"""What was measured of each face, kept on disk, so that a killed evaluation goes on where it was."""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import numpy as np

from export.baselines import Contestant
from export.degradation_sheets import labelled, png
from export.journal import Journal
from export.measures import Measured
from export.prepare import read_rgb
from export.runs import write_atomic
from idm_rt.types import RgbImage


class FaceResults:
    """Figures, features and the pictures of the sheets, by face and contestant, below OUT.

    ``OUT/journal.jsonl`` holds one line per face and contestant; its first line the settings that every figure depends
    on. A contestant's version is part of its key, so another version of it is measured anew.
    """

    def __init__(self, out: Path, settings: dict[str, Any]) -> None:
        """Open or go on.

        Raises:
            ConfigError: the folder holds results of other settings.
        """
        self._pictures = out / "pictures"
        self.journal = Journal(out / "journal.jsonl", settings)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.journal.__exit__(kind, error, trace)

    def missing(self, face: str, contestants: Sequence[Contestant], shown: bool) -> list[Contestant]:
        """Those of whom this face's figures, or its picture where one is shown, are not there yet."""
        return [
            c
            for c in contestants
            if _key(face, c) not in self.journal.done or (shown and not self._picture_file(face, c).is_file())
        ]

    def add(self, face: str, contestant: Contestant, measured: Measured, picture: RgbImage | None) -> None:
        """Keep one result; the picture first, since the line says that all is there."""
        if picture is not None:
            write_atomic(self._picture_file(face, contestant), png(picture))
        features = measured.features
        packed = None if features is None else base64.b64encode(features.astype("<f4").tobytes()).decode()
        self.journal.add(_key(face, contestant), {"figures": measured.figures, "features": packed})

    def get(self, face: str, contestant: Contestant) -> Measured:
        """A result that is there."""
        row = self.journal.done[_key(face, contestant)]
        packed = row["features"]
        features = None if packed is None else np.frombuffer(base64.b64decode(packed), "<f4").astype(np.float64)
        return Measured(row["figures"], features)

    def picture(self, face: str, contestant: Contestant) -> RgbImage:
        """The picture of a result that is shown."""
        image = read_rgb(self._picture_file(face, contestant))
        assert image is not None, self._picture_file(face, contestant)
        return image

    def _picture_file(self, face: str, contestant: Contestant) -> Path:
        return self._pictures / f"{hashlib.sha256(_key(face, contestant).encode()).hexdigest()[:24]}.png"


def _key(face: str, contestant: Contestant) -> str:
    return f"{face}|{contestant.name}|{contestant.version}"


def sheet(rows: Sequence[Sequence[RgbImage | None]], names: Sequence[str]) -> np.ndarray:
    """Rows of equal pictures with their names in the corner; None leaves a gap."""
    size = next(picture.shape for row in rows for picture in row if picture is not None)
    blank = np.zeros(size, np.uint8)
    lines = [[blank if p is None else labelled(p, name) for p, name in zip(row, names, strict=True)] for row in rows]
    return np.vstack([np.hstack(line) for line in lines])
