"""Threads for inference follow what this process may really use."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from idm_rt import cpu_info


@pytest.mark.parametrize(
    ("content", "expected"), [("200000 100000", 2.0), ("50000 100000\n", 0.5), ("max 100000", None), ("nonsense", None)]
)
def test_quota_of_a_control_group(content: str, expected: float | None, tmp_path: Path) -> None:
    path = tmp_path / "cpu.max"
    path.write_text(content)
    assert cpu_info.cpu_quota(path) == expected


def test_no_control_group(tmp_path: Path) -> None:
    assert cpu_info.cpu_quota(tmp_path / "absent") is None


@pytest.mark.parametrize(("quota", "expected"), [(None, 8), (2.0, 2), (1.5, 2), (0.2, 1), (64.0, 8)])
def test_the_quota_cuts_the_affinity(quota: float | None, expected: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: set(range(8)), raising=False)
    monkeypatch.setattr(cpu_info, "cpu_quota", lambda: quota)
    assert cpu_info.available_cpus() == expected
