"""The evaluation's command on networks made here: a whole run, a killed one that goes on, and what it refuses."""

from __future__ import annotations

import json
import sys
from contextlib import contextmanager
from types import ModuleType, SimpleNamespace

import cv2
import numpy as np
import pytest

from export import baselines, evaluate
from export.evaluation_tables import markdown
from export.frechet import MobileNetFeatures
from export.learned_measures import open_learned
from export.losses import VggHed
from export.measures import Measures


class PlainIdentity:
    """A stand-in for dlib's network: the mean colour."""

    def embed(self, face):
        return face.mean((0, 1)) / 255.0


class Sharpener:
    """A stand-in for an opened model; it counts the faces that it is given."""

    engine, precision = "numpy", "f64"

    def __init__(self, sha256: str = "0" * 64) -> None:
        files = {"onnx": SimpleNamespace(sha256=sha256)}
        self.manifest = SimpleNamespace(name="tiny", version="1", steps=(1, 2), files=files)
        self.calls = 0

    def restore(self, crops, steps=1):
        self.calls += 1
        soft = np.stack([cv2.GaussianBlur(x, (0, 0), 2) for x in crops])
        return np.clip(crops + 0.2 * steps * (crops.astype(float) - soft) + 0.5, 0, 255).astype(np.uint8)


@pytest.fixture
def model():
    return Sharpener()


@pytest.fixture
def command(held_out, tmp_path, monkeypatch, mobilenet_file, vgg_file, model):
    """The command on three faces, with one slow baseline; takes further arguments, returns the exit status."""
    networks = VggHed(vgg_file), PlainIdentity(), MobileNetFeatures(mobilenet_file)

    def open_measures(weights, learned):
        opened, absent = open_learned(learned)
        return Measures(*networks, learned=opened, absent=absent)

    @contextmanager
    def opened(name, engine):
        yield model

    slow = baselines.Contestant("slow one", baselines.bicubic, slow=True)
    monkeypatch.setattr(evaluate, "open_measures", open_measures)
    monkeypatch.setattr(evaluate, "open_restorer", opened)
    monkeypatch.setattr(evaluate, "open_baselines", lambda names: [baselines.open_baselines(["bicubic"])[0], slow])
    start = [str(held_out), str(tmp_path / "weights"), str(tmp_path / "out"), "--baseline-limit", "2"]
    return lambda *more: evaluate.main([*start, *more])


def report_of(tmp_path):
    return json.loads((tmp_path / "out" / "evaluation.json").read_text())


@pytest.mark.slow
def test_a_whole_evaluation(tmp_path, command):
    out = tmp_path / "out"
    assert command("--levels", "call-hard", "bfr") == 0
    report = report_of(tmp_path)
    level = report["levels"]["call-hard"]
    assert list(level["mean"]) == ["input", "bicubic", "tiny, steps 1", "tiny, steps 2"]
    assert {"psnr_db", "ssim", "vgg_hed", "identity", "excess", "frechet"} == set(level["mean"]["input"])
    assert level["faces_per_source"] == {"source0": 2, "source1": 1} and level["few"]["faces"] == 2
    assert "slow one" in level["few"]["mean"] and set(report["clean"]) == {"steps 1", "steps 2"}
    assert report["clean"]["steps 1"]["psnr_db"] > report["clean"]["steps 2"]["psnr_db"] > 20.0
    assert cv2.imread(str(out / "sheet-bfr.png")).shape == (3 * 256, 6 * 256, 3)
    page = (out / "evaluation.html").read_text()
    assert page.count("data:image/png") == 2 and "slow one" in page and "by source" in page
    assert (out / "evaluation.md").read_text() == markdown(report)


def test_a_killed_evaluation_goes_on_and_ends_with_the_same_report(tmp_path, command, model, monkeypatch):
    calls, restore = [], model.restore

    def dies_at_the_third_face(crops, steps=1):
        calls.append(steps)
        if len(calls) == 5:
            raise KeyboardInterrupt
        return restore(crops, steps)

    monkeypatch.setattr(model, "restore", dies_at_the_third_face)
    assert command("--levels", "call-medium") == 130
    assert not (tmp_path / "out" / "evaluation.json").exists()
    monkeypatch.setattr(model, "restore", restore)
    model.calls = 0
    assert command("--levels", "call-medium") == 0
    assert model.calls == 2 + 3 * 4  # the third face at two numbers of steps, then the clean ones, twice each
    resumed = report_of(tmp_path)
    model.calls = 0
    assert command("--levels", "call-medium") == 0 and model.calls == 0  # finished: tables from what is kept
    (tmp_path / "out").rename(tmp_path / "first")
    assert command("--levels", "call-medium") == 0 and report_of(tmp_path) == resumed
    sheets = [(tmp_path / folder / "sheet-call-medium.png").read_bytes() for folder in ("first", "out")]
    assert sheets[0] == sheets[1]


def test_slow_baselines_may_see_more_faces_later(tmp_path, command, model):
    assert command("--levels", "call-medium") == 0
    model.calls = 0
    assert command("--levels", "call-medium", "--baseline-limit", "3") == 0
    assert model.calls == 0 and report_of(tmp_path)["levels"]["call-medium"]["few"]["faces"] == 3


def test_results_of_another_model_are_not_mixed_in(command, model, monkeypatch, capsys):
    def killed(crops, steps=1):
        raise KeyboardInterrupt

    monkeypatch.setattr(model, "restore", killed)
    assert command("--levels", "call-medium") == 130
    model.manifest.files["onnx"].sha256 = "1" * 64
    assert command("--levels", "call-medium") == 1
    assert "journal.jsonl belongs to a run with other settings (model)" in capsys.readouterr().err


def test_a_dry_run_says_what_would_be_measured(tmp_path, command, capsys):
    assert command("--levels", "call-hard", "--learned", "musiq", "--dry-run") == 0
    plan = json.loads(capsys.readouterr().out)
    assert plan["faces"] == 3 and plan["levels"] == ["call-hard"]
    assert plan["contestants"] == ["bicubic", "slow one", "tiny, steps 1", "tiny, steps 2"]
    assert not (tmp_path / "out").exists()


def fake_piq(failing: bool) -> ModuleType:
    """piq as far as it is used: LPIPS is a mean difference, DISTS cannot fetch its weights."""

    def dists():
        raise OSError("<urlopen error [Errno -2]\nName or service not known>")

    module = ModuleType("piq")
    module.LPIPS = dists if failing else lambda: lambda x, y: (x - y).abs().mean()
    module.DISTS = dists
    return module


def test_learned_measures_are_taken_where_they_can_be_had(tmp_path, command, monkeypatch):
    monkeypatch.setitem(sys.modules, "piq", fake_piq(failing=False))
    monkeypatch.setitem(sys.modules, "pyiqa", None)  # as if it were not installed
    assert command("--levels", "call-medium", "--learned", "lpips", "dists", "musiq") == 0
    report = report_of(tmp_path)
    means = report["levels"]["call-medium"]["mean"]
    assert 0.0 < means["input"]["lpips"] < 0.5 and "dists" not in means["input"]
    assert "Name or service not known" in report["absent"]["dists"] and "\n" not in report["absent"]["dists"]
    assert "pyiqa is not installed" in report["absent"]["musiq"]
    text = (tmp_path / "out" / "evaluation.md").read_text()
    assert "| LPIPS |" in text and "Not measured: dists (" in text
    assert "Not measured: dists (" in (tmp_path / "out" / "evaluation.html").read_text()


def test_a_measure_without_a_truth_rates_the_truth_too(monkeypatch, vgg_file):
    module = ModuleType("pyiqa")
    module.create_metric = lambda name, device: lambda x: 100 * x.mean()
    monkeypatch.setitem(sys.modules, "pyiqa", module)
    learned, absent = open_learned(["musiq"])
    grey = np.full((64, 64, 3), 51, np.uint8)
    found = Measures(VggHed(vgg_file), PlainIdentity(), learned=learned).of_all({"dark": grey // 2}, grey)
    assert not absent and found["truth"].figures["musiq"] == pytest.approx(20.0)
    assert found["dark"].figures["musiq"] == pytest.approx(100 * 25 / 255)
