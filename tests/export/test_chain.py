"""The whole way from photos to a model in an engine, through the command lines, on the smallest networks."""

from __future__ import annotations

import csv
import json
import shutil
from pathlib import Path

import cv2
import numpy as np
import pytest
from skimage.data import astronaut
from tiny_recogniser import write_tiny_recogniser

from export import distill, enhance_dataset, evaluate, export_onnx, measures, package_model, prepare, train_teacher
from export.brisque import HIGH, LOW
from export.dataset import evaluation_pairs, load_faces
from export.runs import RunDirectory
from idm_rt.errors import ModelError
from idm_rt.model_store import find_landmarker
from idm_rt.restorer import open_restorer


class PlainIdentity:
    """A stand-in for dlib's network: the mean colour."""

    def __init__(self, folder: Path) -> None:
        assert folder.is_dir()

    def embed(self, face):
        return face.mean((0, 1)) / 255.0


@pytest.fixture(scope="module")
def photos(tmp_path_factory):
    """Six photos of one face, turned and lit in different ways, the last one held out; and two that are no use."""
    folder = tmp_path_factory.mktemp("photos")
    base = cv2.resize(astronaut()[:320, 60:420], None, fx=2.0, fy=2.0, interpolation=cv2.INTER_CUBIC)
    height, width = base.shape[:2]
    rows = []
    for index in range(6):
        turn = cv2.getRotationMatrix2D((width / 2, height / 2), 4 * index - 10, 1.0)
        photo = cv2.warpAffine(base, turn, (width, height), borderMode=cv2.BORDER_REFLECT_101)
        photo = cv2.convertScaleAbs(photo[:, ::-1] if index % 2 else photo, alpha=0.8 + 0.05 * index)
        cv2.imwrite(str(folder / f"{index}.png"), photo[..., ::-1])
        rows.append({"file": f"{index}.png", "person": f"person {index}", "split": "val" if index == 5 else "train"})
    cv2.imwrite(str(folder / "wall.png"), np.full((256, 256, 3), 128, np.uint8))
    (folder / "broken.jpg").write_bytes(b"no picture")
    rows += [{"file": name, "person": name, "split": "train"} for name in ("wall.png", "broken.jpg")]
    with (folder / "faces.csv").open("w", newline="") as file:
        table = csv.DictWriter(file, ["file", "source", "person", "split", "licence", "origin"])
        table.writeheader()
        table.writerows({**row, "source": "nasa", "licence": "public domain", "origin": "NASA"} for row in rows)
    return folder


@pytest.fixture(scope="module")
def weights(tmp_path_factory, vgg_file):
    """Measuring networks: a small VGG, a small recogniser, and a regression with one support vector."""
    folder = tmp_path_factory.mktemp("weights")
    shutil.copyfile(vgg_file, folder / measures.VGG_FILE)
    write_tiny_recogniser(folder)
    picture = np.ascontiguousarray(astronaut()[..., ::-1])
    scaled = 2 * (cv2.quality.QualityBRISQUE_computeFeatures(picture).ravel() - LOW) / (HIGH - LOW) - 1
    row = " ".join(f"{i + 1}:{value!r}" for i, value in enumerate(scaled.tolist()))
    (folder / "brisque").mkdir()
    header = "svm_type epsilon_svr\nkernel_type rbf\ngamma 0.05\nrho -3.5\nSV\n"
    (folder / measures.BRISQUE_FILE).write_text(f"{header}7 {row}\n")
    return folder


def test_photos_become_a_model_that_an_engine_runs(photos, weights, tmp_path, monkeypatch, capsys):
    def dry(command, *arguments):
        capsys.readouterr()
        assert command.main([*arguments, "--dry-run"]) == 0
        return json.loads(capsys.readouterr().out)

    try:
        find_landmarker()
    except ModelError:
        pytest.skip("no face landmarker here: fetch it with idm-rt models fetch")
    monkeypatch.setattr(measures, "DlibIdentity", PlainIdentity)
    faces, better, teacher, run, model, out = (
        str(tmp_path / name) for name in ("faces", "faces-1", "teacher", "run", "tiny-model", "report")
    )
    recogniser = ["--recogniser", str(weights / "net.json")]
    assert dry(prepare, str(photos), faces)["splits"] == {"train": 7, "val": 1} and not Path(faces).exists()
    assert prepare.main([str(photos), faces]) == 0
    lines = Path(faces, "skipped.jsonl").read_text().splitlines()
    skipped = {row["photo"]: row["reason"] for row in map(json.loads, lines)}
    assert skipped == {"wall.png": "no face found", "broken.jpg": "unreadable"}

    tiny = ["--preset", "tiny", "--samples", "16", "--validate-every", "16", "--pair-window", "8"]
    assert train_teacher.main([faces, teacher, *tiny, "--steps", "2"]) == 0
    brisque = ["--brisque", str(weights / measures.BRISQUE_FILE)]
    anything = ["--min-gain", "-100", "--max-identity", "2"]
    assert enhance_dataset.main([faces, teacher, better, "--steps", "2", *recogniser, *brisque, *anything]) == 0
    assert [len(record.restored_by) for record in prepare.read_records(Path(better))] == [1, 1, 1, 1, 1, 0]

    student = ["--teacher", teacher, "--teacher-steps", "2", *recogniser, "--identity-weight", "0.1"]
    vgg = ["--vgg", str(weights / measures.VGG_FILE), "--perceptual-weight", "0.1", "--gan-from", "8"]
    assert distill.main([better, run, *tiny, *student, *vgg]) == 0
    row = RunDirectory(Path(run), json.loads(Path(run, "config.json").read_text())).stats()[-1]
    assert row["seen"] == 16 and {"pixel", "endpoint", "identity", "perceptual", "gan"} <= row.keys()

    assert dry(package_model, run, better, model)["samples_seen"] == 16 and not Path(model).exists()
    assert package_model.main([run, better, model]) == 0
    engine = ["--engine", "onnxruntime", "--levels", "call-medium", "--regressor", run]
    assert evaluate.main([better, str(weights), out, "--model", model, *engine]) == 1  # the run is no regressor
    assert evaluate.main([better, str(weights), out, "--model", model, *engine[:-2]]) == 0
    assert package_model.main([run, better, model, "--evaluation", f"{out}/evaluation.json"]) == 0
    card = Path(model, "MODEL_CARD.md").read_text()
    assert "16 faces seen" in card and "| tiny-model, steps 4 |" in card

    network = json.dumps(json.loads(Path(model, "model.json").read_text())["network"])
    again = tmp_path / "again.onnx"
    plan = dry(export_onnx, f"{model}/model.safetensors", str(again), "--network", network)
    assert plan["opset"] == 20 and not again.exists()
    assert export_onnx.main([f"{model}/model.safetensors", str(again), "--network", network]) == 0
    assert again.read_bytes() == Path(model, "model.onnx").read_bytes()
    crops = np.stack([pair.degraded for _, pair in evaluation_pairs(load_faces(Path(better), "val"), "call-medium")])
    pictures = {}
    for name in ("onnxruntime", "openvino"):
        with open_restorer(model, name) as restorer:
            pictures[name] = restorer.restore(crops, 2).astype(int)
    assert pictures["onnxruntime"].shape == crops.shape and (pictures["onnxruntime"] != crops).any()
    assert np.abs(pictures["onnxruntime"] - pictures["openvino"]).mean() < 1.0
