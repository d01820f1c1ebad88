"""The still picture: bounded, evenly spread, on the face."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from idm_rt.before_after import BeforeAfter
from idm_rt.errors import MediaError

BOX = np.array([300.0, 100.0, 400.0, 220.0])


def numbered(index: int, height: int = 480, width: int = 640) -> np.ndarray:
    return np.full((height, width, 3), index % 256, np.uint8)


def test_few_pairs_are_kept_evenly_spread() -> None:
    collector = BeforeAfter()
    for index in range(200):
        collector.add(numbered(index), numbered(index), [BOX])
        assert 1 <= len(collector.pairs) <= 12
    kept = [int(before[0, 0, 0]) for before, _ in collector.pairs]
    assert len(kept) >= 6 and len(set(np.diff(kept))) == 1 and kept[-1] > 150


def test_a_pair_is_the_square_around_the_face() -> None:
    picture = numbered(0)
    picture[100:220, 300:400] = 200
    collector = BeforeAfter()
    collector.add(picture, picture + 1, [BOX])
    before, after = collector.pairs[0]
    assert before.shape == after.shape == (240, 240, 3)  # twice the larger side of the box
    assert (before == 200).all(axis=2).sum() == 100 * 120 and np.array_equal(after, before + 1)


def test_large_pictures_are_reduced_and_those_without_faces_stand_in() -> None:
    collector = BeforeAfter()
    for index in range(3):
        collector.add(numbered(index, 2160, 3840), numbered(index, 2160, 3840), [])
    assert [before.shape for before, _ in collector.pairs] == [(480, 853, 3)]
    collector.add(numbered(9), numbered(9), [BOX])
    assert [int(before[0, 0, 0]) for before, _ in collector.pairs] == [9]


def test_the_file_is_written_whole_or_not_at_all(tmp_path: Path) -> None:
    collector = BeforeAfter()
    with pytest.raises(ValueError, match="at least one pair"):
        collector.picture()
    collector.add(numbered(7), numbered(8), [BOX])
    collector.write(tmp_path / "both.png")
    assert Image.open(tmp_path / "both.png").size == (964, 480)
    with pytest.raises(MediaError, match="has suffix .txt"):
        collector.write(tmp_path / "both.txt")
    assert [path.name for path in tmp_path.iterdir()] == ["both.png"]
