"""The engine's benchmark: its arithmetic on a scripted clock, the count of operations against the network itself."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from idm_rt.backends.device_clock import DeviceClock
from idm_rt.backends.peak import Peak, measure_peak
from idm_rt.config import EnhancerConfig
from idm_rt.engine_bench import EngineBenchOptions, denoiser_flops, engine_lines, measure_engine, streams
from idm_rt.errors import ConfigError
from idm_rt.model_manifest import load_manifest
from idm_rt.restorer import Restorer


def test_the_count_of_operations_is_that_of_the_network() -> None:
    import torch
    from torch.utils.flop_counter import FlopCounterMode

    from idm_rt.network import DenoiserConfig, DenoiserNet

    for config in (DenoiserConfig(), DenoiserConfig(channels=(16, 32), blocks=(1, 3), embedding=16)):
        x = torch.zeros(1, 3, 64, 64)
        with FlopCounterMode(display=False) as counter, torch.no_grad():
            DenoiserNet(config)(x, x.clone(), torch.ones(1))
        assert denoiser_flops(config.to_dict(), 64) == counter.get_total_flops()


def test_a_row_from_a_scripted_clock(tiny_folder: Path) -> None:
    """The clock moves 10 ms per reading: every call takes 10 ms, whatever its batch."""
    ticks = iter(np.arange(0, 1000, 0.01))
    peaks = iter([Peak(50.0, 9.0, "f32"), Peak(80.0, 8.0, "f32")])
    options = EngineBenchOptions((2, 1), runs=10, config=EnhancerConfig(model=str(tiny_folder), steps=2))
    row = measure_engine(options, clock=lambda: float(next(ticks)), measure=lambda *of: next(peaks))
    assert row["open_s"] == row["first_call_s"] == pytest.approx(0.01)
    assert [batch["batch"] for batch in row["batches"]] == [1, 2]
    assert [batch["faces_per_s"] for batch in row["batches"]] == pytest.approx([100.0, 200.0])
    assert all(batch["p99_ms"] == pytest.approx(10.0) and batch["count"] == 10 for batch in row["batches"])
    assert row["faces_per_s"] == pytest.approx(200.0) and row["streams_30_fps"] == 6
    manifest = load_manifest(tiny_folder)
    gflops = denoiser_flops(manifest.network, manifest.crop_size) * 400 / 1e9  # two evaluations per face
    assert row["peak"]["network_gflops"] == pytest.approx(gflops, abs=0.06) and row["peak"]["gflops"] == 80.0
    assert row["peak"]["copy_gb_s"] == 9.0 and row["peak"]["fraction"] == pytest.approx(gflops / 80, abs=1e-3)
    assert row["device_time_of"] is None and all(batch["device_ms"] is None for batch in row["batches"])
    assert row["kind"] == "engine" and row["engine"]["name"] == "openvino" and row["device"] is None
    lines = list(engine_lines(row))
    assert "keeps up with: 6" in lines[-2] and any(line.startswith("2 ") and "200.0" in line for line in lines)


class _Event:
    """Of a device that needs 2.5 ms for everything."""

    def record(self) -> None:
        pass

    def synchronize(self) -> None:
        pass

    def elapsed_time(self, end_event: _Event, /) -> float:
        return 2.5


def test_the_times_of_the_device_stand_beside_those_of_the_caller(
    tiny_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = DeviceClock(_Event, "all that the test does")

    def timed(restorer: Restorer, *arguments: Any) -> Any:
        clock.start()
        correction = untimed(restorer, *arguments)
        clock.stop()
        return correction

    untimed = Restorer.correction
    monkeypatch.setattr(Restorer, "correction", timed)
    monkeypatch.setattr(Restorer, "device_clock", lambda restorer: clock)
    shown: list[int] = []

    def progress(items: Iterable[int], total: int | None, unit: str) -> Iterator[int]:
        for item in items:
            shown.append(item)
            yield item

    options = EngineBenchOptions((1, 2), runs=10, config=EnhancerConfig(model=str(tiny_folder)))
    row = measure_engine(options, measure=lambda *of: Peak(1.0, 1.0, "fp16"), progress=progress)
    assert row["device_time_of"] == "all that the test does" and shown == [1, 2]
    for batch in row["batches"]:
        assert batch["device_ms"]["p50_ms"] == 2.5 and batch["device_ms"]["count"] == batch["count"] == 10
    lines = list(engine_lines(row))
    assert any("all that the test does" in line for line in lines) and any(line.endswith(" 2.500") for line in lines)


def test_streams_need_every_frame_in_time() -> None:
    def batch(n: int, p95: float) -> dict[str, float]:
        return {"batch": n, "p95_ms": p95, "faces_per_s": 1000.0 * n / p95}

    assert streams([batch(1, 40.0)]) == 0  # later than the next frame
    assert streams([batch(1, 20.0)]) == 1
    assert streams([batch(1, 5.0), batch(8, 20.0), batch(32, 64.0)]) == 13  # the batch of 32 is too late
    assert streams([batch(1, 5.0), batch(32, 30.0)]) == 35


@pytest.mark.parametrize("precision", ["f32", "bf16", "int8"])
def test_a_peak_is_measured_in_the_arithmetic_of_the_engine(precision: str) -> None:
    from idm_rt.backends.openvino_backend import has_bf16, the_core

    found = measure_peak("cpu", precision)
    assert found.gflops > 1 and found.copy_gb_s > 0.1
    assert found.arithmetic == ("f32" if precision == "bf16" and not has_bf16(the_core()) else precision)


@pytest.mark.parametrize("precision", ["f32", "bf16", "int8"])
def test_the_product_that_is_timed_is_one(precision: str) -> None:
    from idm_rt.backends.openvino_backend import has_bf16, the_core
    from idm_rt.backends.openvino_peak import matrix_product

    if precision == "bf16" and not has_bf16(the_core()):
        pytest.skip("this CPU has no bf16")
    product = np.asarray(matrix_product(64, precision)()[0])  # type: ignore[index]
    generator = np.random.default_rng(0)
    left = generator.uniform(-1, 1, (64, 64)).astype(np.float32)
    right = generator.integers(-127, 128, (64, 64)) / 127
    assert np.abs(product - left @ right).max() < {"f32": 1e-3, "bf16": 0.2, "int8": 0.2}[precision]
    assert np.abs(left @ right).max() > 5


def test_without_openvino_numpy_is_measured(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "idm_rt.backends.openvino_peak", None)
    assert measure_peak("cpu", "int8").arithmetic == "f32"


def test_options_that_measure_nothing() -> None:
    for options in ({"runs": 1}, {"batches": ()}, {"batches": (0, 1)}):
        with pytest.raises(ConfigError, match="expected runs from 10 and batches from 1"):
            EngineBenchOptions(**options)
