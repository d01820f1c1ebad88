"""The committed benchmark rows, and the table made of them."""

from __future__ import annotations

import importlib.util
import json
from pathlib import Path
from types import ModuleType

import pytest

ROOT = Path(__file__).resolve().parent.parent
RESULTS = ROOT / "demos" / "benchmark_results"


@pytest.fixture(scope="module")
def benchmark() -> ModuleType:
    spec = importlib.util.spec_from_file_location("benchmark", ROOT / "demos" / "benchmark.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def row(**changes: object) -> dict[str, object]:
    """A row as ``idm_rt.bench`` makes it, reduced to what the table shows."""
    values = {
        "machine": {"cpu": "Some CPU", "cores": 2},
        "clip": {"width": 640, "height": 480},
        "seen": {"faces_per_frame": 1.0},
        "steps": 1,
        "engine": {"name": "openvino", "precision": "f32"},
        "model": {"name": "idm-face-256", "version": "1.0.0"},
        "frame_p50_ms": 20.04,
        "frame_p95_ms": 24.96,
        "fps": 49.9,
        "stages_ms": {"track": {"p50_ms": 4.0}, "restore": {"p50_ms": 12.0}},
        "outside_networks_ratio": 0.2,
        "memory": {"rss_peak_mb": 400.4},
        "commit": "0123456789ab",
    }
    return {**values, **changes}


def test_the_table_shows_what_the_rows_say(benchmark: ModuleType, tmp_path: Path) -> None:
    (tmp_path / "b.json").write_text(json.dumps(row(steps=4)))
    (tmp_path / "a.json").write_text(json.dumps(row(commit=None)))
    head, _, first, second = benchmark.table(tmp_path).splitlines()
    assert head.count("|") == first.count("|") == 15
    assert "| Some CPU, 2 cores | 640x480 | 1 | 1 | openvino f32 |" in first and first.endswith("| release |")
    assert "| 20.0 | 25.0 | 49.9 | 4.0 | 12.0 | 20% | 400 |" in second and "| 4 |" in second


@pytest.mark.parametrize("path", sorted(RESULTS.glob("*.json")), ids=lambda path: path.stem)
def test_committed_rows_are_honest(path: Path, benchmark: ModuleType) -> None:
    """Enough frames, none bypassed, percentiles that belong to the stages, everything named that was measured."""
    values = json.loads(path.read_text(encoding="utf-8"))
    assert values["seen"]["frames"] >= 300 and values["seen"]["bypassed"] == 0
    assert values["seen"]["restored"] >= values["seen"]["frames"]
    assert values["frame_p95_ms"] == values["stages_ms"]["frame"]["p95_ms"]
    assert values["memory"]["rss_slope_mb_per_1000_frames"] is not None
    assert len(values["clip"]["sha256"]) == 64 and len(values["model"]["sha256"]["onnx"]) == 64
    assert values["machine"]["cpu"] and values["versions"]["openvino"] and values["commit"]
    assert len(benchmark.cells(values)) == 14


def test_the_readme_shows_the_committed_rows(benchmark: ModuleType) -> None:
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    shown = text.split("<!-- benchmark -->")[1].split("<!-- /benchmark -->")[0].strip()
    assert shown == benchmark.table(RESULTS)
