"""What the doctor says about GPUs and plans that are not on this machine; more is in tests/cli/test_commands.py."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import pytest

from idm_rt import doctor
from idm_rt.backends import EngineStatus
from idm_rt.backends.nvidia import Gpu
from idm_rt.backends.trt.plan_store import PlanStore, StoredPlan

GPU = Gpu("Fake GPU", "8.9", "570.86.15", 24_000)


def test_a_gpu_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doctor, "first_gpu", lambda: GPU)
    check = doctor.check_gpu()
    assert check.ok and check.found == "Fake GPU, driver 570.86.15, compute capability 8.9, 24000 MB"


@pytest.mark.parametrize("broken", [False, True])
def test_no_gpu_is_no_fault_a_broken_driver_is_a_note(broken: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doctor, "first_gpu", lambda: None)
    monkeypatch.setattr(doctor, "why_no_gpu", lambda: ("NVIDIA driver library not present (libcuda.so.1)", broken))
    check = doctor.check_gpu()
    assert check.found == "none found: NVIDIA driver library not present (libcuda.so.1)"
    assert check.ok is not broken and not check.needed


def plans_are(monkeypatch: pytest.MonkeyPatch, *plans: StoredPlan) -> None:
    store = SimpleNamespace(plans=lambda: list(plans), folder=Path("/plans"))
    monkeypatch.setattr(doctor, "PlanStore", lambda: store)


def test_plans_are_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doctor, "first_gpu", lambda: None)
    plans_are(monkeypatch)
    check = doctor.check_plans()
    assert check.ok and check.found == "0 built in /plans"
    good = [StoredPlan(Path(f"/plans/{i}.plan"), engine, {}, 1, None) for i, engine in enumerate(["tensorrt-rtx"] * 2)]
    plans_are(monkeypatch, *good, StoredPlan(Path("/plans/x.plan"), "tensorrt", None, 1, None))
    assert doctor.check_plans().found == "3 built (tensorrt 1, tensorrt-rtx 2) in /plans"
    plans_are(monkeypatch, *good, StoredPlan(Path("/plans/x.plan"), "tensorrt", None, 1, "x.json is missing"))
    check = doctor.check_plans()
    assert not check.ok and "damaged: x.plan" in check.found and "idm-rt engines build" in check.cure


@pytest.mark.parametrize("installed", [False, True])
def test_a_gpu_without_a_plan(installed: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    plans_are(monkeypatch)
    monkeypatch.setattr(doctor, "first_gpu", lambda: GPU)
    monkeypatch.setattr(doctor, "probe_engines", lambda: [EngineStatus("tensorrt", installed, "", None)])
    assert doctor.check_plans().ok is not installed


def test_the_real_folder_is_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doctor, "PlanStore", lambda: PlanStore(tmp_path))
    (tmp_path / "tensorrt").mkdir()
    (tmp_path / "tensorrt" / "face-0123.plan").write_bytes(b"plan")
    check = doctor.check_plans()
    assert check.found.startswith(f"1 built (tensorrt 1) in {tmp_path}, damaged: face-0123.plan")
