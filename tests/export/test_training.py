"""The training path end to end on a handful of pictures: prepared set -> train -> resume -> package -> engine."""

from __future__ import annotations

import json

import cv2
import numpy as np
import pytest
import torch
from skimage.data import astronaut

from export import train as training
from export.dataset import PairStream, evaluation_pairs, load_faces
from export.export_onnx import export_onnx
from export.package_model import main as package_main
from export.prepare import FaceRecord, photo_table, write_lines
from export.prepare import main as prepare_main
from export.runs import RunDirectory, moved_into_place
from idm_rt.errors import ConfigError, ModelError
from idm_rt.network import DenoiserConfig, DenoiserNet, load_denoiser
from idm_rt.restorer import open_restorer


@pytest.fixture(scope="module")
def faces(tmp_path_factory):
    """A prepared data set made of the astronaut's face, turned and mirrored."""
    folder = tmp_path_factory.mktemp("faces")
    (folder / "faces").mkdir()
    base = cv2.resize(astronaut()[0:256, 96:352], (384, 384), interpolation=cv2.INTER_CUBIC)
    records = []
    for index in range(5):
        turn = cv2.getRotationMatrix2D((192, 192), 4 * index, 1.0)
        picture = cv2.warpAffine(base, turn, (384, 384), borderMode=cv2.BORDER_REFLECT_101)
        name = f"faces/{index}.png"
        cv2.imwrite(str(folder / name), picture[..., ::-1])
        split = "val" if index == 4 else "train"
        records.append(FaceRecord(name, f"{index}.jpg", "nasa", "astronaut", split, "public domain", 256, 0, 20))
    write_lines(folder / "faces.jsonl", (training.asdict(record) for record in records))
    return folder


def command(faces, run, *more):
    return [str(faces), str(run), "--preset", "tiny", *more]


def test_a_tiny_run_lowers_the_loss_packages_and_runs_in_an_engine(faces, tmp_path):
    run, model = tmp_path / "run", tmp_path / "tiny-model"
    assert training.main(command(faces, run, "--samples", "64")) == 0
    rows = RunDirectory(run, json.loads((run / "config.json").read_text())).stats()
    assert rows[-1]["seen"] == 64 and rows[-1]["psnr_x1"] > rows[-1]["psnr_input"]
    assert (run / "sheet-0000064.png").is_file()
    assert package_main([str(run), str(faces), str(model)]) == 0
    assert "64 faces seen" in (model / "MODEL_CARD.md").read_text()
    with open_restorer(model, "onnxruntime") as restorer:
        crops = np.stack([pair.degraded for _, pair in evaluation_pairs(load_faces(faces, "val"), "call-medium")])
        assert restorer.restore(crops, 2).shape == crops.shape


def test_a_resumed_run_is_bit_exact(faces, tmp_path):
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    config = training.PRESETS["tiny"]

    def trainer(run):
        train_set, val = load_faces(faces, "train"), load_faces(faces, "val")
        made = training.Trainer(config, train_set, val, RunDirectory(run, training.asdict(config)), None)
        made.resume()
        return made

    def feed(made, until):
        stream = training.training_loader(
            made.faces, config.batch, config.seed, made.seen, config.pair_window, config.workers
        )
        loader = iter(stream)
        while made.seen < until:
            clean, degraded = next(loader)
            made.step(training.to_unit(clean), training.to_unit(degraded))
        return made

    reference = feed(trainer(whole), 40)
    first = feed(trainer(parts), 36)  # past the start of the discriminator
    first.save()
    second = feed(trainer(parts), 40)
    for a, b in zip(reference.net.parameters(), second.net.parameters(), strict=True):
        assert torch.equal(a, b)
    for a, b in zip(reference.ema.parameters(), second.ema.parameters(), strict=True):
        assert torch.equal(a, b)


def test_a_run_may_begin_with_anothers_networks(faces, tmp_path):
    first, second = tmp_path / "first", tmp_path / "second"
    assert training.main(command(faces, first, "--samples", "8")) == 0
    start = ["--start-from", str(first / "checkpoint.pt")]
    assert training.main(command(faces, second, "--samples", "4", "--seed", "2", *start)) == 0
    state = torch.load(second / "checkpoint.pt", weights_only=True)
    assert (state["seen"], state["inherited"]) == (4, 8)
    assert json.loads((second / "config.json").read_text())["start_from"]


def test_a_start_that_is_no_checkpoint_is_refused(faces, tmp_path, capsys):
    assert training.main(command(faces, tmp_path / "run", "--start-from", str(tmp_path / "none.pt"))) == 1
    assert "none.pt is missing" in capsys.readouterr().err
    (tmp_path / "bad.pt").write_bytes(b"no checkpoint")
    assert training.main(command(faces, tmp_path / "run", "--start-from", str(tmp_path / "bad.pt"))) == 1
    assert "bad.pt is damaged or no checkpoint" in capsys.readouterr().err


def test_dry_run_prints_the_resolved_configuration(faces, tmp_path, capsys):
    assert training.main(command(faces, tmp_path / "none", "--dry-run", "--samples", "7")) == 0
    assert json.loads(capsys.readouterr().out)["samples"] == 7
    assert not (tmp_path / "none").exists()


def test_a_run_of_other_settings_is_refused(faces, tmp_path, capsys):
    run = tmp_path / "run"
    RunDirectory(run, training.asdict(training.PRESETS["tiny"]))
    assert training.main(command(faces, run, "--seed", "9")) == 1
    assert "other settings (seed)" in capsys.readouterr().err


def test_a_damaged_checkpoint_is_named(faces, tmp_path, capsys):
    run = tmp_path / "run"
    RunDirectory(run, training.asdict(training.PRESETS["tiny"])).checkpoint.write_bytes(b"half a checkpoint")
    assert training.main(command(faces, run)) == 1
    assert "checkpoint.pt is damaged" in capsys.readouterr().err


def test_a_loss_that_is_not_finite_stops_the_run(faces, tmp_path):
    config = training.PRESETS["tiny"]
    val = load_faces(faces, "val")
    made = training.Trainer(config, val, val, RunDirectory(tmp_path / "run", training.asdict(config)), None)
    broken = torch.full((2, 3, 256, 256), float("nan"))
    with pytest.raises(training.IdmError, match="loss is nan"):
        made.step(broken, broken)


def test_the_stream_depends_on_seed_and_index_alone(faces):
    train_set = load_faces(faces, "train")
    from_start = iter(PairStream(train_set, seed=3, window=16))
    later = iter(PairStream(train_set, seed=3, start=4, window=16))
    for _ in range(4):
        next(from_start)
    for a, b in zip(next(from_start), next(later), strict=True):
        assert torch.equal(a, b)


def test_later_steps_start_from_the_networks_own_estimate():
    net = DenoiserNet(DenoiserConfig(channels=(16,), blocks=(1,)))
    y = torch.rand(1, 3, 64, 64) * 2 - 1
    state, t = training.state_at(net, y, torch.zeros_like(y), steps=2, index=1)
    assert t == 0.5
    assert torch.allclose(state, y)  # a fresh network is the identity, and there is no noise


def test_prepare_refuses_what_holds_no_photos(tmp_path, capsys):
    assert prepare_main([str(tmp_path / "missing"), str(tmp_path / "out")]) == 1
    assert "is not a folder" in capsys.readouterr().err
    assert prepare_main([str(tmp_path), str(tmp_path / "out")]) == 1
    assert "holds no photos" in capsys.readouterr().err


def test_photos_without_a_table_are_split_by_name(tmp_path):
    for name in ("a.jpg", "b/c.PNG", "notes.txt"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    rows = photo_table(tmp_path)
    assert [(row["file"], row["source"]) for row in rows] == [("a.jpg", "photos"), ("b/c.PNG", "b")]


def test_a_half_written_file_is_never_seen(tmp_path):
    with pytest.raises(RuntimeError), moved_into_place(tmp_path / "out.bin") as path:
        path.write_bytes(b"half")
        raise RuntimeError
    assert list(tmp_path.iterdir()) == []


def test_a_dataset_that_is_none_says_how_to_make_one(tmp_path):
    with pytest.raises(ConfigError, match=r"export\.prepare"):
        load_faces(tmp_path, "train")


def test_weights_of_another_network_are_refused(tmp_path):
    from safetensors.torch import save_file

    save_file({"x": torch.zeros(1)}, tmp_path / "w.safetensors")
    with pytest.raises(ModelError, match="does not hold the network"):
        load_denoiser(tmp_path / "w.safetensors", DenoiserConfig().to_dict())


def test_fp16_export_keeps_the_picture(tmp_path):
    torch.manual_seed(0)
    net = DenoiserNet(DenoiserConfig(channels=(16, 32), blocks=(1, 1))).eval()
    with torch.no_grad():
        net.head.weight.normal_(0, 0.02)
    assert export_onnx(net, tmp_path / "half.onnx", "fp16") > 50.0
    assert export_onnx(net, tmp_path / "full.onnx") > 80.0
