"""The training path end to end on a handful of pictures: prepared set -> train -> resume -> package -> engine."""

from __future__ import annotations

import errno
import json
import os
import subprocess
import sys
from dataclasses import asdict

import cv2
import numpy as np
import pytest
import torch
from skimage.data import astronaut

from export import distill, train_teacher
from export.commands import trained_network
from export.dataset import PairStream, StreamPlan, evaluation_pairs, load_faces
from export.export_onnx import export_onnx
from export.loop import Loop, learning_rate
from export.package_model import keep_int8
from export.package_model import main as package_main
from export.prepare import FaceRecord, photo_table, write_lines
from export.prepare import main as prepare_main
from export.runs import RunDirectory, moved_into_place, run_command
from export.teacher_sampler import posterior_step, sample_posterior
from idm_rt.diffusion import KAPPA, bridge_state
from idm_rt.errors import ConfigError, IdmError, ModelError
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
    write_lines(folder / "faces.jsonl", (asdict(record) for record in records))
    return folder


def command(faces, run, *more):
    return [str(faces), str(run), "--preset", "tiny", *more]


def test_a_tiny_run_lowers_the_loss_packages_and_runs_in_an_engine(faces, tmp_path):
    run, model = tmp_path / "run", tmp_path / "tiny-model"
    assert distill.main(command(faces, run, "--samples", "64")) == 0
    rows = RunDirectory(run, json.loads((run / "config.json").read_text())).stats()
    assert rows[-1]["seen"] == 64 and rows[-1]["psnr_x1"] > rows[-1]["psnr_input"]
    assert (run / "sheet-0000064.png").is_file()
    assert package_main([str(run), str(faces), str(model)]) == 0
    assert "64 faces seen" in (model / "MODEL_CARD.md").read_text()
    again = tmp_path / "again"
    start = ["--start-from", str(model / "model.safetensors")]
    assert distill.main(command(faces, again, "--samples", "4", "--seed", "2", *start)) == 0
    assert torch.load(again / "checkpoint.pt", weights_only=True)["inherited"] == 64
    with open_restorer(model, "onnxruntime") as restorer:
        crops = np.stack([pair.degraded for _, pair in evaluation_pairs(load_faces(faces, "val"), "call-medium")])
        assert restorer.restore(crops, 2).shape == crops.shape


def test_a_resumed_run_is_bit_exact(faces, tmp_path):
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    config = distill.PRESETS["tiny"]

    def loop(run):
        objective = distill.DistillObjective(config, load_faces(faces, "val"))
        made = Loop(config, objective, load_faces(faces, "train"), RunDirectory(run, asdict(config)))
        made.resume()
        return made

    def feed(made, until):
        batches = made.batches()
        while made.seen < until:
            made.step(next(batches))
        return made

    reference = feed(loop(whole), 40)
    first = feed(loop(parts), 36)  # past the start of the discriminator
    first.save()
    second = feed(loop(parts), 40)
    for a, b in zip(reference.net.parameters(), second.net.parameters(), strict=True):
        assert torch.equal(a, b)
    for a, b in zip(reference.ema.parameters(), second.ema.parameters(), strict=True):
        assert torch.equal(a, b)


def test_a_run_may_begin_with_anothers_networks(faces, tmp_path):
    first, second = tmp_path / "first", tmp_path / "second"
    assert distill.main(command(faces, first, "--samples", "8")) == 0
    start = ["--start-from", str(first / "checkpoint.pt")]
    assert distill.main(command(faces, second, "--samples", "4", "--seed", "2", *start)) == 0
    state = torch.load(second / "checkpoint.pt", weights_only=True)
    assert (state["seen"], state["inherited"]) == (4, 8)
    assert json.loads((second / "config.json").read_text())["start_from"]


def test_a_start_that_is_no_checkpoint_is_refused(faces, tmp_path, capsys):
    assert distill.main(command(faces, tmp_path / "run", "--start-from", str(tmp_path / "none.pt"))) == 1
    assert "none.pt is missing" in capsys.readouterr().err
    (tmp_path / "bad.pt").write_bytes(b"no checkpoint")
    assert distill.main(command(faces, tmp_path / "run", "--start-from", str(tmp_path / "bad.pt"))) == 1
    assert "bad.pt is damaged or no checkpoint" in capsys.readouterr().err
    (tmp_path / "bad.safetensors").write_bytes(b"no weights")
    assert distill.main(command(faces, tmp_path / "other", "--start-from", str(tmp_path / "bad.safetensors"))) == 1
    assert "bad.safetensors is no packaged model" in capsys.readouterr().err


def test_dry_run_prints_the_resolved_configuration(faces, tmp_path, capsys):
    assert distill.main(command(faces, tmp_path / "none", "--dry-run", "--samples", "7")) == 0
    assert json.loads(capsys.readouterr().out)["samples"] == 7
    assert not (tmp_path / "none").exists()


def test_the_networks_shape_is_a_setting_and_must_be_whole(faces, tmp_path, capsys):
    shape = ["--channels", "16", "32", "--blocks", "1", "2"]
    assert distill.main(command(faces, tmp_path / "run", "--dry-run", *shape)) == 0
    assert json.loads(capsys.readouterr().out)["network"]["channels"] == [16, 32]
    assert distill.main(command(faces, tmp_path / "run", "--dry-run", *shape[:3])) == 1
    assert "give --channels and --blocks one number per level each" in capsys.readouterr().err


def test_a_run_of_other_settings_is_refused(faces, tmp_path, capsys):
    run = tmp_path / "run"
    RunDirectory(run, asdict(distill.PRESETS["tiny"]))
    assert distill.main(command(faces, run, "--seed", "9")) == 1
    assert "other settings (seed)" in capsys.readouterr().err


def test_a_damaged_checkpoint_is_named(faces, tmp_path, capsys):
    run = tmp_path / "run"
    RunDirectory(run, asdict(distill.PRESETS["tiny"])).checkpoint.write_bytes(b"half a checkpoint")
    assert distill.main(command(faces, run)) == 1
    assert "checkpoint.pt is damaged" in capsys.readouterr().err


def test_a_loss_that_is_not_finite_stops_the_run(faces, tmp_path):
    config = distill.PRESETS["tiny"]
    val = load_faces(faces, "val")
    made = Loop(config, distill.DistillObjective(config, val), val, RunDirectory(tmp_path / "run", asdict(config)))
    broken = torch.full((2, 3, 256, 256), float("nan"))
    with pytest.raises(IdmError, match="loss is nan"):
        made.step((broken, broken))


@pytest.mark.parametrize("lanes", [1, 2])
def test_the_stream_depends_on_seed_and_number_alone(faces, lanes):
    train_set = load_faces(faces, "train")
    plan = StreamPlan(batch=2, seed=3, window=16, lanes=lanes, previous=True)
    from_start, later = iter(PairStream(train_set, plan)), iter(PairStream(train_set, plan, first=3))
    skipped = [next(from_start) for _ in range(3)]
    wanted, found = next(from_start), next(later)
    assert len(wanted) == 3 and wanted[0].shape == (2, 3, 256, 256)
    assert all(torch.equal(a, b) for a, b in zip(wanted, found, strict=True))
    assert not torch.equal(wanted[1], skipped[0][1])


def test_later_steps_start_from_the_networks_own_estimate():
    net = DenoiserNet(DenoiserConfig(channels=(16,), blocks=(1,)))
    y = torch.rand(1, 3, 64, 64) * 2 - 1
    state, t = distill.state_at(net, y, torch.zeros_like(y), steps=2, index=1)
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


def test_a_full_disk_is_one_line(tmp_path, capsys):
    def full() -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(tmp_path / "checkpoint.pt"))

    assert run_command(full) == 1
    assert (
        capsys.readouterr()
        .err.splitlines()[-1]
        .endswith("checkpoint.pt: No space left on device; mend that and run the same command again")
    )
    assert run_command(lambda: (tmp_path / "no" / "folder").write_text("x")) == 1
    assert "No such file or directory" in capsys.readouterr().err


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


def test_every_term_can_be_learnt_at_once(faces, tmp_path):
    """Teacher, frame pairs, idempotence and the discriminator together, on the smallest networks."""
    teacher, run = tmp_path / "teacher", tmp_path / "run"
    assert train_teacher.main([str(faces), str(teacher), "--preset", "tiny", "--samples", "16"]) == 0
    more = ["--gan-from", "4", "--temporal-weight", "0.2", "--idempotence-weight", "0.1", "--validate-every", "16"]
    assert distill.main(command(faces, run, "--teacher", str(teacher), "--samples", "32", *more)) == 0
    rows = RunDirectory(run, json.loads((run / "config.json").read_text())).stats()
    assert {"pixel", "endpoint", "idempotence", "temporal", "critic", "gan"} <= rows[-1].keys()
    assert (run / "losses.png").read_bytes()[:4] == b"\x89PNG"


def test_a_teacher_lowers_its_loss_and_its_sampler_gains(faces, tmp_path):
    run = tmp_path / "teacher"
    assert train_teacher.main([str(faces), str(run), "--preset", "tiny", "--samples", "96"]) == 0
    rows = RunDirectory(run, json.loads((run / "config.json").read_text())).stats()
    assert rows[-1]["psnr_x3"] > rows[-1]["psnr_input"]
    config, val = train_teacher.PRESETS["tiny"], load_faces(faces, "val")
    objective = train_teacher.TeacherObjective(config, val)
    pair = (objective.validation.clean, objective.validation.degraded)
    fresh = DenoiserNet(DenoiserConfig.from_dict(config.network))
    losses = []
    for net in (fresh, trained_network(run)[0]):
        torch.manual_seed(0)
        losses.append(float(objective.losses(net, pair, 0)["pixel"].detach()))
    assert losses[1] < losses[0]


def test_the_regressor_needs_no_noise_and_one_step(faces, tmp_path, capsys):
    run = tmp_path / "plain"
    assert distill.main(command(faces, run, "--plain", "true", "--samples", "24")) == 0
    row = RunDirectory(run, json.loads((run / "config.json").read_text())).stats()[-1]
    assert "psnr_x1" in row and "psnr_x4" not in row
    assert distill.main(command(faces, tmp_path / "no", "--plain", "true", "--teacher", str(run))) == 1
    assert "leave out --teacher" in capsys.readouterr().err


def test_the_perceptual_loss_asks_for_its_weights(faces, tmp_path, capsys):
    assert distill.main(command(faces, tmp_path / "run", "--perceptual-weight", "0.5")) == 1
    assert "needs --vgg WEIGHTS" in capsys.readouterr().err


def test_an_unknown_precision_is_refused(faces, tmp_path, capsys):
    assert distill.main(command(faces, tmp_path / "run", "--precision", "fp8")) == 1
    assert "choose f32 or bf16" in capsys.readouterr().err


def test_the_rate_rises_stays_and_falls():
    config = distill.DistillConfig(samples=1000, warm_up=100, cool_down=0.5, learning_rate=1.0)
    rates = [learning_rate(config, seen, 4) for seen in (0, 46, 96, 400, 500, 750, 996)]
    assert rates == pytest.approx([0.04, 0.5, 1.0, 1.0, 1.0, 0.5, 0.01])


def test_posterior_steps_keep_the_bridges_marginal():
    """From a true state and the true face, a step lands on a true state: mean and variance of equation (1)."""
    generator = torch.Generator().manual_seed(0)
    x0, y = torch.full((1, 3, 64, 64), 0.3), torch.full((1, 3, 64, 64), -0.5)
    t, s = 0.8, 0.3
    x_t = bridge_state(x0, y, torch.randn(x0.shape, generator=generator), t)
    x_s = posterior_step(x_t, x0, torch.randn(x0.shape, generator=generator), t, s)
    assert float(x_s.mean()) == pytest.approx(float((1 - s) * 0.3 - s * 0.5), abs=0.002)
    assert float(x_s.std()) == pytest.approx(KAPPA * s**0.5, rel=0.03)


def test_a_perfect_teacher_ends_at_the_truth():
    x0, y = torch.rand(1, 3, 8, 8), torch.rand(1, 3, 8, 8)
    assert torch.equal(sample_posterior(lambda x, c, t: x0, y, 7), x0)


def test_a_network_that_leaves_good_faces_alone_has_no_idempotence_loss():
    net = DenoiserNet(DenoiserConfig(channels=(16,), blocks=(1,)))  # fresh: the identity
    restored = torch.rand(1, 3, 64, 64)
    assert float(distill.idempotence(net, restored, torch.zeros_like(restored))) == pytest.approx(1e-3, abs=1e-6)


def test_two_processes_learn_what_one_learns_from_both_batches(tmp_path):
    """The mean of the gradients, through a real process group."""
    script = tmp_path / "ranks.py"
    script.write_text(
        "import pathlib, torch\n"
        "from export.ranks import join_ranks\n"
        "ranks = join_ranks('cpu')\n"
        "a, b = torch.full((2, 2), float(ranks.rank)), torch.tensor(10.0 * ranks.rank)\n"
        "ranks.mean([a, None, b])\n"
        "assert torch.equal(a, torch.full((2, 2), 0.5)) and b == 5.0, (a, b)\n"
        "ranks.wait(); ranks.close()\n"
        "pathlib.Path(__file__).with_name(f'done-{ranks.rank}').write_text(str(ranks.leads))\n"
    )
    arguments = ["--standalone", "--nproc-per-node", "2", str(script)]
    result = subprocess.run(
        [sys.executable, "-m", "torch.distributed.run", *arguments],
        capture_output=True, text=True, timeout=120, check=False, env={**os.environ, "PYTHONPATH": os.getcwd()},
    )  # fmt: skip
    assert result.returncode == 0, result.stderr
    assert [(tmp_path / f"done-{rank}").read_text() for rank in (0, 1)] == ["True", "False"]


def test_packaging_the_same_weights_again_keeps_int8_and_others_drop_it(tmp_path):
    manifest = {"files": {"weights": {"sha256": "a"}}, "tolerance": {"f32_db": 60.0}}
    before = {
        "files": {"weights": {"sha256": "a"}, "onnx_int8": {"path": "model_int8.onnx"}},
        "tolerance": {"int8_db": 45.0},
    }
    (tmp_path / "model.json").write_text(json.dumps(before))
    keep_int8(tmp_path, manifest)
    assert manifest["files"]["onnx_int8"] and manifest["tolerance"] == {"f32_db": 60.0, "int8_db": 45.0}
    other = {"files": {"weights": {"sha256": "b"}}, "tolerance": {}}
    keep_int8(tmp_path, other)
    assert other == {"files": {"weights": {"sha256": "b"}}, "tolerance": {}}
