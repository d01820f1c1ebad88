"""The question for a GPU is answered by the driver, or by its absence."""

from __future__ import annotations

import ctypes
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import pytest

from idm_rt.backends.nvidia import cuda_device_count, why_no_gpu


@pytest.fixture(autouse=True)
def forget_the_answer() -> Iterator[None]:
    cuda_device_count.cache_clear()
    yield
    cuda_device_count.cache_clear()


def fake_driver(init: int, devices: int) -> SimpleNamespace:
    def count_into(pointer: Any) -> int:
        pointer._obj.value = devices
        return 0

    return SimpleNamespace(cuInit=lambda flags: init, cuDeviceGetCount=count_into)


@pytest.mark.parametrize(("init", "devices", "expected"), [(0, 2, 2), (0, 0, 0), (100, 2, 0)])
def test_counts_what_the_driver_counts(init: int, devices: int, expected: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ctypes, "CDLL", lambda name: fake_driver(init, devices))
    assert cuda_device_count() == expected


def test_no_driver(monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(name: str) -> None:
        raise OSError(f"{name}: cannot open shared object file")

    monkeypatch.setattr(ctypes, "CDLL", missing)
    assert cuda_device_count() == 0


def test_a_library_that_is_no_driver(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ctypes, "CDLL", lambda name: SimpleNamespace())
    assert cuda_device_count() == 0


def test_the_reason_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(name: str) -> None:
        raise OSError(f"{name}: cannot open shared object file")

    for driver, words, broken in (
        (missing, "driver library not present (", False),
        (lambda name: fake_driver(100, 0), "offers no device (cuInit returns 100)", False),
        (lambda name: fake_driver(803, 0), "offers no device (cuInit returns 803)", True),
        (lambda name: SimpleNamespace(), "is not an NVIDIA driver", True),
    ):
        monkeypatch.setattr(ctypes, "CDLL", driver)
        reason, found_broken = why_no_gpu()
        assert words in reason and found_broken is broken
