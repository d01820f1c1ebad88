"""The extrinsic step: what is restored, what is taken, and that a killed run goes on."""

from __future__ import annotations

import json
from dataclasses import asdict

import cv2
import numpy as np
import pytest
import torch
from skimage.data import astronaut

from export import enhance_dataset as extrinsic
from export.dataset import load_faces
from export.enhance_dataset import DatasetEnhancer, Gate, enhance_dataset
from export.journal import Journal
from export.prepare import FaceRecord, read_records, read_rgb, sharpness, write_lines
from idm_rt.errors import ConfigError


@pytest.fixture
def blurred(tmp_path):
    """Two training faces, one of them blurred, and a blurred held-out one; with a run directory to name."""
    folder = tmp_path / "faces-0"
    (folder / "faces").mkdir(parents=True)
    sharp = cv2.resize(astronaut()[0:256, 96:352], (384, 384), interpolation=cv2.INTER_CUBIC)
    records = []
    for index, (sigma, split) in enumerate([(0, "train"), (2.0, "train"), (2.0, "val")]):
        picture = cv2.GaussianBlur(sharp, (0, 0), sigma) if sigma else sharp
        cv2.imwrite(str(folder / f"faces/{index}.png"), picture[..., ::-1])
        records.append(FaceRecord(f"faces/{index}.png", f"{index}.jpg", "nasa", "a", split, "PD", 256, 0, 9))
    write_lines(folder / "faces.jsonl", (asdict(record) for record in records))
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "checkpoint.pt").write_bytes(b"weights")
    return folder


def unsharp(x: torch.Tensor) -> torch.Tensor:
    """Stands for a restorer: it helps a blurred face and overdoes a sharp one."""
    soft = torch.nn.functional.avg_pool2d(x, 5, 1, 2, count_include_pad=False)
    return x + 1.5 * (x - soft)


def best_at_ten(face: np.ndarray) -> float:
    """A score that falls on either side of a good sharpness."""
    return -abs(sharpness(face) - 10.0)


def enhancer(max_identity: float = 0.5) -> DatasetEnhancer:
    def distance(a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
        return (a - b).abs().mean((1, 2, 3))

    return DatasetEnhancer(unsharp, distance, best_at_ten, Gate(min_gain=0.2, max_identity=max_identity))


def test_only_what_got_better_is_taken_and_held_out_faces_stay(blurred, tmp_path):
    out = tmp_path / "faces-1"
    enhance_dataset(blurred, tmp_path / "run", out, enhancer(), {"round": 1})
    records = read_records(out)
    assert [len(record.restored_by) for record in records] == [0, 1, 0]
    same = [np.array_equal(read_rgb(blurred / r.file), read_rgb(out / r.file)) for r in records]
    assert same == [True, False, True]
    assert sharpness(read_rgb(out / records[1].file)[64:-64, 64:-64]) > sharpness(
        read_rgb(blurred / records[1].file)[64:-64, 64:-64]
    )
    summary = json.loads((out / "enhancement.json").read_text())
    assert (summary["seen"], summary["accepted"], summary["round"]) == (2, 1, 1)
    assert summary["mean_gain_accepted"] > 0.2
    assert len(load_faces(out, "train").records) == 2  # a data set like any other


def test_a_face_that_becomes_another_is_not_taken(blurred, tmp_path):
    enhance_dataset(blurred, tmp_path / "run", tmp_path / "out", enhancer(max_identity=1e-4), {})
    assert json.loads((tmp_path / "out" / "enhancement.json").read_text())["accepted"] == 0


def test_a_killed_run_goes_on(blurred, tmp_path, monkeypatch):
    seen = []
    original = extrinsic.enhance_face

    def dies_at_the_second(folder, record, out, made):
        seen.append(record.file)
        if len(seen) == 2:
            raise KeyboardInterrupt
        return original(folder, record, out, made)

    monkeypatch.setattr(extrinsic, "enhance_face", dies_at_the_second)
    with pytest.raises(KeyboardInterrupt):
        enhance_dataset(blurred, tmp_path / "run", tmp_path / "out", enhancer(), {})
    assert not (tmp_path / "out" / "faces.jsonl").exists()  # not a data set yet
    enhance_dataset(blurred, tmp_path / "run", tmp_path / "out", enhancer(), {})
    assert seen == ["faces/0.png", "faces/1.png", "faces/1.png"]
    assert len(read_records(tmp_path / "out")) == 3


def test_other_settings_are_refused(blurred, tmp_path):
    enhance_dataset(blurred, tmp_path / "run", tmp_path / "out", enhancer(), {"steps": 15})
    with pytest.raises(ConfigError, match="other settings"):
        enhance_dataset(blurred, tmp_path / "run", tmp_path / "out", enhancer(), {"steps": 4})


def test_a_half_written_line_of_a_journal_is_dropped(tmp_path):
    with Journal(tmp_path / "journal.jsonl", {"a": 1}) as journal:
        journal.add("x", {"value": 1})
    with (tmp_path / "journal.jsonl").open("a") as file:
        file.write('["y", {"val')
    with Journal(tmp_path / "journal.jsonl", {"a": 1}) as journal:
        assert journal.done == {"x": {"value": 1}}
        journal.add("y", 2)
    with Journal(tmp_path / "journal.jsonl", {"a": 1}) as journal:
        assert journal.done == {"x": {"value": 1}, "y": 2}
