"""The committed benchmark rows, the tables and the picture made of them, and what is measured for them."""

from __future__ import annotations

import importlib
import json
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import cv2
import pytest

from idm_rt.machine import cpu_name

ROOT = Path(__file__).resolve().parent.parent
RESULTS = ROOT / "demos" / "benchmark_results"
_MODULES = ("benchmark", "benchmark_tables", "benchmark_plot")


@pytest.fixture(scope="module")
def benchmark() -> Iterator[ModuleType]:
    """demos/benchmark.py, which finds its neighbours as a script does."""
    sys.path.insert(0, str(ROOT / "demos"))
    yield importlib.import_module("benchmark")
    sys.path.remove(str(ROOT / "demos"))
    for name in _MODULES:
        sys.modules.pop(name, None)


@pytest.fixture
def tables(benchmark: ModuleType) -> ModuleType:
    return importlib.import_module("benchmark_tables")


_WHERE = {
    "machine": {"cpu": "Some CPU", "cores": 2},
    "engine": {"name": "openvino", "precision": "f32"},
    "model": {"name": "idm-face-256", "version": "1.0.0"},
    "commit": "0123456789ab",
}


def row(**changes: object) -> dict[str, Any]:
    """A row as ``idm_rt.bench`` makes it, reduced to what the table shows."""
    values = {
        **_WHERE,
        "clip": {"width": 640, "height": 480, "copies": 1},
        "seen": {"faces_per_frame": 1.0},
        "steps": 1,
        "frame_p50_ms": 20.04,
        "frame_p95_ms": 24.96,
        "fps": 49.9,
        "stages_ms": {"track": {"p50_ms": 4.0}, "restore": {"p50_ms": 12.0}},
        "outside_networks_ratio": 0.2,
        "memory": {"rss_peak_mb": 400.4},
    }
    return {**values, **changes}


def engine_row(**changes: object) -> dict[str, Any]:
    """A row as ``idm_rt.engine_bench`` makes it."""
    batches = [
        {"batch": n, "p50_ms": 8.0 * n, "p95_ms": 9.0 * n, "p99_ms": 9.5 * n, "faces_per_s": 125.0 + n}
        for n in (1, 2, 4)
    ]
    values = {
        **_WHERE,
        "kind": "engine",
        "steps": 1,
        "device": None,
        "batches": [{**batch, "device_ms": None} for batch in batches],
        "faces_per_s": 129.0,
        "streams_30_fps": 4,
        "peak": {"fraction": 0.41, "arithmetic": "f32"},
        "open_s": 0.32,
        "memory_peak_mb": 250.3,
    }
    return {**values, **changes}


def peers_row() -> dict[str, Any]:
    """A row as ``idm_rt.peer_bench`` makes it."""
    net = {"runtime": "torch 9", "precision": "f32", "weights": "random", "error": None}
    return {
        **_WHERE,
        "kind": "peers",
        "ours": {"p50_ms": 8.0, "input_px": 256},
        "ours_in_torch": {"p50_ms": 20.0, "precision": "f32", "error": None},
        "peers": [
            {"name": "Big", "input_px": 512, "parameters": 86_400_000, "p50_ms": 2000.4, "ratio": 250.0,
             "ratio_same_runtime": 100.0, **net},
            {"name": "Gone", "input_px": 256, "error": "no package of PyPI with its network is known"},
        ],
    }  # fmt: skip


def put(folder: Path, **rows: dict[str, Any]) -> Path:
    folder.mkdir(exist_ok=True)
    for name, values in rows.items():
        (folder / f"{name}.json").write_text(json.dumps(values))
    return folder


def test_the_table_shows_what_the_rows_say(tables: ModuleType, tmp_path: Path) -> None:
    made = tables.tables(put(tmp_path, b=row(steps=4), a=row(commit=None)))
    assert list(made) == ["pipeline"]
    head, _, first, second = made["pipeline"].splitlines()
    assert head.count("|") == first.count("|") == 15
    assert "| Some CPU, 2 cores | 640x480 | 1 | 1 | openvino f32 |" in first and first.endswith("| release |")
    assert "| 20.0 | 25.0 | 49.9 | 4.0 | 12.0 | 20% | 400 |" in second and "| 4 |" in second


def test_the_table_of_the_engines(tables: ModuleType, tmp_path: Path) -> None:
    on_gpu = engine_row(device={"name": "Some GPU"})
    on_gpu["batches"][0]["device_ms"] = {"p50_ms": 0.4321}
    made = tables.tables(put(tmp_path, a=engine_row(), b=on_gpu))
    assert list(made) == ["engine"]
    head, _, first, second = made["engine"].splitlines()
    assert head.count("|") == first.count("|") == second.count("|") == 16
    assert "| Some CPU, 2 cores | openvino f32 | idm-face-256 1.0.0 | 1 | 8.00 | 9.00 | 9.50 |  |" in first
    assert "| 129 | batch 4 | 4 | 41% of f32 | 0.3 | 250 |" in first
    assert second.startswith("| Some GPU |") and "| 0.432 |" in second


def test_the_table_of_the_peers(tables: ModuleType, tmp_path: Path) -> None:
    head, _, ours, in_torch, big, gone = tables.tables(put(tmp_path, a=peers_row()))["peers"].splitlines()
    assert {line.count("|") for line in (head, ours, in_torch, big, gone)} == {9}
    assert "| 256 |  | 8.0 | 1 |  | openvino f32 |" in ours and "| 20.0 |  | 1 | torch f32 |" in in_torch
    assert "| Big | 512 | 86.4 M | 2000 | 250 | 100 | torch 9, f32, random weights |" in big
    assert "not measured: no package" in gone


def test_the_tables_go_between_their_markers(benchmark: ModuleType, tmp_path: Path) -> None:
    readme = tmp_path / "README.md"
    readme.write_text("Before.\n<!-- benchmark -->\nold\n<!-- /benchmark -->\nAfter.\n")
    results = put(tmp_path / "rows", a=row())
    benchmark.update_readme(readme, results)
    first = readme.read_text()
    assert "old" not in first and "49.9" in first and "engines" not in first
    put(results, b=engine_row(), c=peers_row())
    for _ in range(2):  # the markers are made, then used
        benchmark.update_readme(readme, results)
        text = readme.read_text()
        order = [text.index(part) for part in ("49.9", "<!-- benchmark engines -->", "batch 4", "Big", "After.")]
        assert order == sorted(order) and text.count("<!-- benchmark peers -->") == text.count("batch 4") == 1
    for name in "bc":
        (results / f"{name}.json").unlink()
    benchmark.update_readme(readme, results)
    assert "batch 4" not in readme.read_text() and "Big" not in readme.read_text()


def test_what_is_not_there_is_named(
    benchmark: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def run(*arguments: object) -> str:
        monkeypatch.setattr(sys, "argv", ["benchmark.py", *map(str, arguments)])
        assert benchmark.main() == 1
        (line,) = capsys.readouterr().err.splitlines()
        return line

    (tmp_path / "README.md").write_text("no markers")
    assert "lacks <!-- benchmark -->" in run("--readme", tmp_path / "README.md")
    assert "is not a folder" in run("--table", tmp_path / "no")
    assert "holds no rows" in run("--plot", put(tmp_path / "empty"), tmp_path / "out.png")
    assert not (tmp_path / "out.png").exists()
    (put(tmp_path / "damaged") / "x.json").write_text("{")
    assert "x.json is not a row" in run("--table", tmp_path / "damaged")


def test_the_picture(benchmark: ModuleType, tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    large = row(clip={"width": 1920, "height": 1080, "copies": 1}, fps=31.0)
    folder = put(tmp_path / "rows", a=row(), b=large, c=engine_row())
    benchmark.plot(folder, tmp_path / "pictures" / "speed.png")
    whole = cv2.imread(str(tmp_path / "pictures" / "speed.png"))
    assert whole is not None and whole.shape[1] > whole.shape[0] > 300
    (folder / "c.json").unlink()
    benchmark.plot(folder, tmp_path / "pictures" / "speed.png")
    without = cv2.imread(str(tmp_path / "pictures" / "speed.png"))
    half = whole.shape[1] // 2
    assert (whole[:, :half] != without[:, :half]).any()  # the engine's curve is gone


def test_every_engine_and_precision_of_this_machine_is_measured(
    benchmark: ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    from idm_rt.backends import EngineStatus

    engines = [
        EngineStatus("tensorrt", False, "no GPU", None, applicable=False),
        EngineStatus("torch", True, "the reference", "9", applicable=False),
        EngineStatus("openvino", True, "installed", "9"),
        EngineStatus("onnxruntime", True, "installed", "9"),
    ]
    monkeypatch.setattr(benchmark, "probe_engines", lambda: engines)
    for features, without in ((["avx2"], {"engine_openvino_bf16"}), (["avx512_bf16"], set())):
        monkeypatch.setattr(benchmark, "cpu_features", lambda found=features: found)
        names = set(benchmark.wanted_rows(["engines"], 100))
        every = {"engine_openvino_f32", "engine_openvino_bf16", "engine_openvino_int8", "engine_onnxruntime_f32"}
        assert names == every - without
    rows = benchmark.wanted_rows(list(benchmark.PARTS), 100)
    assert "--peers" in rows["peers"] and rows["1920x1080_1face_1step"][-2:] == ["--frames", "100"]


def test_a_row_that_fails_does_not_end_the_others(
    benchmark: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    real = benchmark.machine_slug()
    (tmp_path / f"{real}_there.json").write_text("{}")
    rows = {"bad": ["--engine", "none"], "there": [], "good": ["--help"]}
    assert benchmark.measure(tmp_path, rows, [], resume=True) == 1
    shown = capsys.readouterr()
    assert "not measured: bad" in shown.err and f"[2/3] {real}_there.json" in shown.out


@pytest.mark.parametrize(
    ("features", "name"),
    [(["avx2", "fma"], "CPU (AVX2)"), (["avx2", "avx512f", "avx512_bf16"], "CPU (AVX512-BF16)"),
     (["avx2", "avx512_bf16", "amx_bf16"], "CPU (AMX)"), (["asimd", "bf16"], "CPU (NEON)"), ([], "CPU")],
)  # fmt: skip
def test_processors_of_one_name_are_told_apart(features: list[str], name: str) -> None:
    assert cpu_name({"cpu": "CPU", "cpu_features": features}) == name


def _honest_pipeline(values: dict[str, Any]) -> None:
    """Enough frames, none bypassed, percentiles that belong to the stages."""
    assert values["seen"]["frames"] >= 300 and values["seen"]["bypassed"] == 0
    assert values["seen"]["restored"] >= values["seen"]["frames"]
    assert values["frame_p95_ms"] == values["stages_ms"]["frame"]["p95_ms"]
    assert values["memory"]["rss_slope_mb_per_1000_frames"] is not None
    assert len(values["clip"]["sha256"]) == 64


def _honest_engine(values: dict[str, Any]) -> None:
    """Enough runs of one face, device times on a GPU, streams that the batches can carry."""
    assert values["batches"][0]["batch"] == 1 and values["batches"][0]["count"] >= 100
    assert values["faces_per_s"] == max(batch["faces_per_s"] for batch in values["batches"])
    assert values["streams_30_fps"] <= max(values["faces_per_s"] / 30, *(b["batch"] for b in values["batches"]))
    on_gpu = values["engine"]["device"] != "cpu"
    assert (values["device"] is not None) == on_gpu
    if values["engine"]["name"] in ("torch", "tensorrt", "tensorrt-rtx") and on_gpu:
        assert all(batch["device_ms"] for batch in values["batches"])


def _honest_peers(values: dict[str, Any]) -> None:
    """Some peers were measured, with the warning about the weights, and the ratios are those of the times."""
    assert "random" in values["note"] and values["ours"]["runs"] >= 50
    measured = [peer for peer in values["peers"] if peer["error"] is None]
    assert measured
    for peer in measured:
        assert peer["runs"] >= 2 and peer["min_ms"] <= peer["p50_ms"] <= peer["max_ms"]
        assert peer["ratio"] == pytest.approx(peer["p50_ms"] / values["ours"]["p50_ms"], abs=0.06)


@pytest.mark.parametrize("path", sorted(RESULTS.glob("*.json")), ids=lambda path: path.stem)
def test_committed_rows_are_honest(path: Path) -> None:
    """What was measured is named; the rest depends on the kind."""
    values = json.loads(path.read_text(encoding="utf-8"))
    check = {"engine": _honest_engine, "peers": _honest_peers}.get(values.get("kind", ""), _honest_pipeline)
    check(values)
    assert len(values["model"]["sha256"]["onnx"]) == 64
    assert values["machine"]["cpu"] and values["versions"]["openvino"] and values["commit"]


def test_the_readme_shows_the_committed_rows(tables: ModuleType) -> None:
    """Every table that has rows, and none that has none; if this fails: demos/benchmark.py --readme README.md."""
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    assert text == tables.render(text, RESULTS)
    for marker, table in zip(tables.MARKERS.values(), map(tables.tables(RESULTS).get, tables.MARKERS), strict=True):
        assert table is None or f"<!-- {marker} -->\n{table}\n<!-- /{marker} -->" in text
