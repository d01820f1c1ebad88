"""int8: what is quantised, whether it still computes the same, and when it is shipped."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tiny_model import SIZE

from export.quantize import Recipe, change, install_into, quantize, time_in_turns, verdict, visited_states
from idm_rt.backends import open_backend
from idm_rt.errors import ModelError
from idm_rt.model_manifest import load_manifest


def report(vgg: float = 0.01, identity: float = 0.002, int8_ms: float = 7.0) -> dict[str, Any]:
    changes = {"1": {"vgg_hed_relative": vgg, "identity": identity}, "4": {"vgg_hed_relative": 0.0, "identity": 0.0}}
    return {"levels": {"call-medium": {"change": changes}}, "ms": {"f32": 10.0, "int8": int8_ms}}


@pytest.mark.parametrize(
    ("values", "why"),
    [
        ({"vgg": 0.03}, "vgg-hed rises by 3.0%, less than 3% is allowed"),
        ({"identity": 0.01}, "identity rises by 0.0100, less than 0.01 is allowed"),
        ({"int8_ms": 10.0}, "it takes 1.00 times as long as f32 here"),
    ],
)
def test_it_is_not_shipped_outside_a_limit(values: dict[str, float], why: str) -> None:
    assert verdict(report(**values)) == (False, why)


def test_within_all_limits_it_is_shipped() -> None:
    assert verdict(report()) == (True, "vgg-hed +1.0%, identity +0.0020, 0.70 times the time of f32")


def test_changes_are_relative_for_vgg_hed_alone() -> None:
    f32, int8 = ({"vgg_hed": v, "identity": v, "psnr_db": v} for v in (0.5, 0.6))
    assert change(f32, int8) == {"vgg_hed_relative": 0.2, "identity": 0.1, "psnr_db": 0.1}


def test_engines_are_timed_in_turns() -> None:
    order: list[str] = []
    times = time_in_turns({name: lambda name=name: order.append(name) for name in "ab"}, runs=3)
    assert order == list("ababab") and set(times) == {"a", "b"}


def test_a_quantised_model_computes_nearly_the_same_and_can_be_taken_when_installed(
    tiny_folder: Path, face_crops: np.ndarray, tmp_path: Path
) -> None:
    folder = Path(shutil.copytree(tiny_folder, tmp_path / "tiny"))
    manifest = load_manifest(folder)
    target = tmp_path / "int8.onnx"
    with open_backend("openvino", manifest, precision="f32").backend as f32:
        states = visited_states(f32, face_crops, (1, 2))
        assert quantize(manifest.verified_file("onnx"), target, states, Recipe()) >= 4
        with pytest.raises(ModelError, match=r"'tiny' is not shipped: too bad; leave out --install"):
            install_into(manifest, target, {"ship": False, "why": "too bad"})
        install_into(manifest, target, {"ship": True, "why": ""})
        y = np.zeros((1, 3, SIZE, SIZE), np.float32) + 0.2
        with open_backend("openvino", load_manifest(folder), precision="int8").backend as int8:
            difference = int8.denoise(y + 0.05, y, 1.0) - f32.denoise(y + 0.05, y, 1.0)
    error = float(np.mean(difference**2))
    assert 0 < error < 4 * 10 ** (-35 / 10)
