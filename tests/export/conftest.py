"""Measuring networks with random weights, saved as the real ones are, and a set of held-out faces."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from skimage.data import astronaut

from export.frechet import MobileNetFeatures
from export.losses import VGG_STAGES
from export.prepare import FaceRecord, write_lines


@pytest.fixture(scope="session")
def mobilenet_file(tmp_path_factory):
    """The real architecture with random weights, saved as torchvision saves it."""
    torch.manual_seed(0)
    net = MobileNetFeatures.__new__(MobileNetFeatures)
    path = tmp_path_factory.mktemp("net") / "net.pth"
    original, MobileNetFeatures._load = MobileNetFeatures._load, lambda self, weights: None
    try:
        net.__init__(path)
    finally:
        MobileNetFeatures._load = original
    torch.save({**net.state_dict(), "classifier.1.bias": torch.zeros(1000)}, path)
    return path


@pytest.fixture(scope="session")
def vgg_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The trunk of VGG16-HED with four channels everywhere."""
    state, channels, generator = {}, 3, torch.Generator().manual_seed(0)
    for name in (name for names in VGG_STAGES for name in names):
        state[f"{name}.weight"] = torch.randn(4, channels, 3, 3, generator=generator) * 0.3
        state[f"{name}.bias"] = torch.zeros(4)
        channels = 4
    path = tmp_path_factory.mktemp("net") / "vgg.safetensors"
    save_file(state, path)
    return path


@pytest.fixture
def held_out(tmp_path: Path) -> Path:
    """A prepared data set of three held-out faces from two sources."""
    folder = tmp_path / "faces"
    folder.mkdir()
    canvas = cv2.resize(astronaut()[0:256, 96:352], (384, 384), interpolation=cv2.INTER_CUBIC)
    records = []
    for index in range(3):
        name = f"{index}.png"
        cv2.imwrite(str(folder / name), np.roll(canvas, 4 * index, axis=1)[..., ::-1])
        records.append(FaceRecord(name, name, f"source{index % 2}", name, "val", "public domain", 256, 0, 20))
    write_lines(folder / "faces.jsonl", (asdict(record) for record in records))
    return folder
