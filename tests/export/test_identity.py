"""The recogniser's reader on a graph small enough to work out by hand, and the real one where it can be had."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from skimage.data import astronaut
from tiny_recogniser import node, write_model, write_tiny_recogniser

from export import distill
from export.commands import recognition_net
from export.dataset import FaceSet
from export.losses import IdentityLoss
from export.mobilefacenet import MobileFaceNet, fold_prelu, read_graph
from export.prepare import FaceRecord
from idm_rt.errors import ConfigError, ModelError
from idm_rt.network import DenoiserConfig, DenoiserNet


@pytest.fixture(scope="module")
def tiny(tmp_path_factory):
    return write_tiny_recogniser(tmp_path_factory.mktemp("net"))


def by_hand(picture: np.ndarray, c: dict[str, np.ndarray], as_written: bool) -> np.ndarray:
    """The tiny graph in numpy, position by position; picture (112, 112, 3)."""
    padded = np.pad(picture, ((0, 1), (0, 1), (0, 0)))  # TensorFlow's SAME with stride 2: the odd pixel at the end
    windows = np.lib.stride_tricks.sliding_window_view(padded, (3, 3), (0, 1))[::2, ::2]  # (56, 56, 3, 3, 3) c,y,x
    x = np.einsum("hwcyx,yxco->hwo", windows, c["w0"]) + c["b0"]
    sign = 1.0 if as_written else -1.0
    x = np.maximum(x, 0) + sign * c["p0/a"] * (x - np.abs(x))
    x = (x * c["w1"][..., 0]).sum((0, 1)) + c["b1"]
    x = np.maximum(x, 0) + (0.0 if as_written else -c["p1/a"] * (x - np.abs(x)))
    return x / np.linalg.norm(x)


@pytest.mark.parametrize("as_written", [False, True])
def test_the_graph_computes_what_its_operations_say(tiny, as_written):
    path, constants = tiny
    picture = np.random.default_rng(1).uniform(-1, 1, (112, 112, 3)).astype(np.float32)
    wanted = by_hand(picture, constants, as_written)
    net = MobileFaceNet(path, as_written)
    found = net(torch.from_numpy(picture.transpose(2, 0, 1))[None])
    assert (wanted < 0).any() or as_written  # else the slope behind the depthwise convolution is not seen
    assert np.allclose(found.numpy()[0], wanted, atol=1e-5)


def test_each_spelt_out_prelu_becomes_one_node(tiny):
    nodes = read_graph(tiny[0]).nodes
    folded = fold_prelu(nodes)
    assert [n.op for n in folded if n.op in ("PRelu", "Abs", "Sub", "Relu")] == ["PRelu", "PRelu"]
    assert len(nodes) - len(folded) == 7


def test_the_loss_is_zero_for_equal_faces_and_moves_the_estimate_only(tiny):
    loss = IdentityLoss(tiny[0])
    truth = torch.rand(2, 3, 256, 256) * 2 - 1
    estimate = (torch.rand(2, 3, 256, 256) * 2 - 1).requires_grad_()
    assert loss(truth, truth).tolist() == pytest.approx([0.0, 0.0], abs=1e-5)
    loss(estimate, truth.requires_grad_()).sum().backward()
    assert float(estimate.grad.abs().sum()) > 0 and truth.grad is None
    assert not any(parameter.requires_grad for parameter in loss.parameters())


def test_only_the_face_is_compared(tiny):
    loss = IdentityLoss(tiny[0])
    face = torch.rand(1, 3, 256, 256)
    other = face.clone()
    other[..., :2, :] = other[..., 226:, :] = other[..., :16] = other[..., 240:] = 0.0
    assert float(loss(other, face)) == pytest.approx(0.0, abs=1e-6)
    other[..., 100:130, 100:130] = 0.0
    assert float(loss(other, face)) > 1e-6


def test_missing_damaged_and_foreign_files_are_named(tiny, tmp_path):
    with pytest.raises(ModelError, match="none.json is missing"):
        MobileFaceNet(tmp_path / "none.json")
    (tmp_path / "bad.json").write_text("{}")
    with pytest.raises(ModelError, match="no TensorFlow.js graph model"):
        MobileFaceNet(tmp_path / "bad.json")
    (tmp_path / "alone.json").write_text(tiny[0].read_text())
    with pytest.raises(ModelError, match="net.bin is missing"):
        MobileFaceNet(tmp_path / "alone.json")
    (tmp_path / "net.bin").write_bytes(tiny[0].with_name("net.bin").read_bytes()[:-40])
    with pytest.raises(ModelError, match="no TensorFlow.js graph model"):
        MobileFaceNet(tmp_path / "alone.json")


def test_an_unknown_operation_and_a_missing_node_are_named(tmp_path):
    source = {"name": "img", "op": "Placeholder"}
    with pytest.raises(ModelError, match="is a Softmax"):
        MobileFaceNet(write_model(tmp_path, [source, node("out", "Softmax", "img")], {}))
    with pytest.raises(ModelError, match="reads a node that is not there"):
        MobileFaceNet(write_model(tmp_path, [source, node("out", "Relu", "gone")], {}))


def test_the_student_learns_from_whole_faces_and_reports_the_figure(tiny, tmp_path):
    canvas = cv2.resize(astronaut()[0:256, 96:352], (384, 384), interpolation=cv2.INTER_CUBIC)
    record = FaceRecord("a.png", "a.jpg", "nasa", "astronaut", "val", "public domain", 256, 0, 20)
    val = FaceSet([record], torch.from_numpy(canvas)[None], np.ones(1))
    config = replace(distill.TINY, identity_weight=0.5, plain=True)
    identity = IdentityLoss(tiny[0])
    objective = distill.DistillObjective(config, val, identity=identity)
    net = DenoiserNet(DenoiserConfig.from_dict(config.network))  # fresh: gives its input back
    clean, y = torch.rand(2, 2, 3, 256, 256).unbind()
    term = objective.losses(net, (clean, y), 0)["identity"]
    assert float(term.detach()) == pytest.approx(0.5 * float(identity(y[:1], clean[:1])), rel=1e-4)
    term.backward()
    assert float(net.head.weight.grad.abs().sum()) > 0
    assert {"identity_input", "identity_x1"} <= objective.validate(net, tmp_path / "sheet.png").keys()


def test_the_loss_asks_for_its_recogniser(tiny):
    with pytest.raises(ConfigError, match="needs --recogniser FILE"):
        recognition_net(None, 0.2, torch.device("cpu"))
    assert recognition_net(None, 0.0, torch.device("cpu")) is None
    assert isinstance(recognition_net(tiny[0], 0.0, torch.device("cpu")), IdentityLoss)


@pytest.fixture(scope="module")
def recogniser():
    shared = os.environ.get("IDM_RT_SHARED")
    if not shared:
        pytest.skip("IDM_RT_SHARED does not name the folder with the recogniser's weights")
    return Path(shared) / "weights" / "mobilefacenet" / "mobilefacenet.json"


def test_the_real_recogniser_knows_a_face_through_blur_and_mirror(recogniser):
    face = torch.from_numpy(astronaut()[0:200, 130:330].transpose(2, 0, 1).copy())[None].float() / 127.5 - 1
    face = torch.nn.functional.interpolate(face, (256, 256), mode="bilinear")
    noise = torch.rand(face.shape, generator=torch.Generator().manual_seed(0)) * 2 - 1
    loss = IdentityLoss(recogniser)
    with torch.no_grad():
        blurred = float(loss(torch.nn.functional.avg_pool2d(face, 5, 1, 2), face))
        mirrored, other = float(loss(face.flip(3), face)), float(loss(noise, face))
    assert 0.0 < blurred < 0.25 and mirrored < 0.35 and other > 0.6


def test_the_mended_graph_has_the_channel_means_that_batch_norm_left(recogniser):
    """As written, every picture has nearly the same embedding."""
    pictures = torch.rand(4, 3, 112, 112, generator=torch.Generator().manual_seed(0)) * 2 - 1
    pictures[1:] = torch.nn.functional.avg_pool2d(pictures[1:], 9, 1, 4)
    with torch.no_grad():
        mended, written = (MobileFaceNet(recogniser, as_written)(pictures) for as_written in (False, True))
    assert mended.shape == (4, 192)
    assert float((written @ written.T).min()) > 0.95 > 0.9 > float((mended @ mended.T).min())
