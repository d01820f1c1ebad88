"""The restorer: exact arithmetic on simple denoisers, and its promises on a real exported network."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tiny_model import SIZE

from idm_rt import open_restorer
from idm_rt.backends import Backend, EngineChoice
from idm_rt.diffusion import KAPPA, sample, time_grid
from idm_rt.errors import EngineError, ModelError
from idm_rt.model_manifest import load_manifest
from idm_rt.restorer import Restorer, to_planes


class FunctionBackend(Backend):
    """An engine that is one function of (x_t, y, t); keeps what it was given."""

    name, precision, device = "openvino", "f32", "cpu"

    def __init__(self, function: Callable[[Any, Any, float], Any]) -> None:
        self.function = function
        self.size = SIZE
        self.calls: list[tuple[np.ndarray, np.ndarray, float]] = []
        self.closed = False

    def denoise(self, x_t: Any, y: Any, t: float) -> Any:
        self.calls.append((x_t.copy(), y.copy(), t))
        return self.function(x_t, y, t)

    def close(self) -> None:
        self.closed = True


@pytest.fixture
def wrap(tiny_folder: Path) -> Callable[[Callable[[Any, Any, float], Any]], tuple[Restorer, FunctionBackend]]:
    def make(function: Callable[[Any, Any, float], Any]) -> tuple[Restorer, FunctionBackend]:
        backend = FunctionBackend(function)
        return Restorer(EngineChoice(backend, "a test"), load_manifest(tiny_folder)), backend

    return make


@pytest.fixture(scope="module")
def restorer(tiny_folder: Path) -> Iterator[Restorer]:
    with open_restorer(tiny_folder, engine="onnxruntime") as opened:
        yield opened


@pytest.fixture(scope="module")
def every_value() -> np.ndarray:
    """(2, SIZE, SIZE, 3) uint8 in which each channel takes each of the 256 values."""
    flat = np.arange(2 * SIZE * SIZE * 3).reshape(2, SIZE, SIZE, 3)
    return ((flat * 7 + flat // 256) % 256).astype(np.uint8)


def test_a_denoiser_that_changes_nothing_returns_every_value_exactly(wrap: Any, every_value: np.ndarray) -> None:
    restorer, _ = wrap(lambda x_t, y, t: y.copy())
    np.testing.assert_array_equal(restorer.restore(every_value), every_value)
    np.testing.assert_array_equal(restorer.correction(every_value), np.zeros(every_value.shape, np.float32))


def test_planes_keep_channel_order_and_range(every_value: np.ndarray) -> None:
    y = to_planes(every_value)
    assert y.shape == (2, 3, SIZE, SIZE) and y.dtype == np.float32 and y.flags.c_contiguous
    np.testing.assert_allclose(y[1, 2], every_value[1, :, :, 2] / 127.5 - 1.0, atol=1e-6)
    assert y.min() == -1.0 and y.max() == 1.0


def test_a_known_change_per_channel(wrap: Any) -> None:
    shift = np.array([10, -20, 30], np.float32).reshape(1, 3, 1, 1) / 127.5
    restorer, _ = wrap(lambda x_t, y, t: y + shift)
    crops = np.full((2, SIZE, SIZE, 3), 100, np.uint8)
    crops[1] = 240
    np.testing.assert_array_equal(restorer.restore(crops)[:, 0, 0], [[110, 80, 130], [250, 220, 255]])
    np.testing.assert_allclose(restorer.correction(crops)[:, 5, 5], [[10, -20, 30], [10, -20, 15]], atol=1e-3)


def test_restored_is_crop_plus_correction(restorer: Restorer, face_crops: np.ndarray) -> None:
    total = face_crops + restorer.correction(face_crops)
    assert total.min() >= -1e-3 and total.max() <= 255 + 1e-3
    np.testing.assert_allclose(total, restorer.restore(face_crops), atol=0.501)
    assert np.abs(restorer.correction(face_crops)).max() > 1  # the network does something


@pytest.mark.parametrize("steps", [1, 2, 4])
def test_the_sampler_runs_the_bridge_of_the_paper(steps: int, wrap: Any, face_crops: np.ndarray) -> None:
    """Same states, times and result as ``diffusion.sample`` gives with the noise recovered from the first state."""

    def toward_grey(x_t: Any, y: Any, t: float) -> Any:
        return 0.5 * y + 0.1 * x_t * np.float32(t)

    restorer, backend = wrap(toward_grey)
    restored = restorer.restore(face_crops, steps)
    assert [t for _, _, t in backend.calls] == time_grid(steps)
    x_1, y, _ = backend.calls[0]
    eps = (x_1 - y) / KAPPA
    assert abs(float(eps.mean())) < 0.05 and abs(float(eps.std()) - 1) < 0.05  # unit normal noise
    np.testing.assert_allclose(eps, np.broadcast_to(eps[:1], eps.shape), atol=1e-5)  # one for all faces
    expected = np.clip(sample(toward_grey, y, eps, steps) * 127.5 + 127.5, 0, 255).transpose(0, 2, 3, 1)
    np.testing.assert_allclose(restored, expected, atol=0.501)


@pytest.mark.parametrize("steps", [1, 2, 4])
def test_the_same_crop_gives_the_same_face_wherever_it_is(
    steps: int, restorer: Restorer, face_crops: np.ndarray
) -> None:
    first = restorer.correction(face_crops, steps)
    np.testing.assert_array_equal(first, restorer.correction(face_crops, steps))
    turned = restorer.correction(face_crops[::-1], steps)[::-1]
    np.testing.assert_allclose(turned, first, atol=5e-3)
    for crop, expected in zip(face_crops, first, strict=True):
        np.testing.assert_allclose(restorer.correction(crop[None], steps)[0], expected, atol=5e-3)


def test_two_restorers_agree(restorer: Restorer, tiny_folder: Path, face_crops: np.ndarray) -> None:
    with open_restorer(tiny_folder, engine="onnxruntime") as other:
        np.testing.assert_array_equal(other.restore(face_crops), restorer.restore(face_crops))


def test_the_input_is_left_alone(restorer: Restorer, face_crops: np.ndarray) -> None:
    kept = face_crops.copy()
    restorer.restore(face_crops, 2)
    restorer.correction(face_crops)
    np.testing.assert_array_equal(face_crops, kept)


def test_no_faces(restorer: Restorer) -> None:
    none = np.empty((0, SIZE, SIZE, 3), np.uint8)
    assert restorer.restore(none).shape == none.shape and restorer.restore(none).dtype == np.uint8
    assert restorer.correction(none, 4).shape == none.shape and restorer.correction(none).dtype == np.float32


@pytest.mark.parametrize(
    ("crops", "steps", "kind", "words"),
    [
        ([[1]], 1, TypeError, "crops must be a uint8 RGB array .*, found list"),
        (np.zeros((1, SIZE, SIZE, 3), np.float32), 1, TypeError, "found float32"),
        (np.zeros((SIZE, SIZE, 3), np.uint8), 1, ValueError, rf"must have shape \(N, {SIZE}, {SIZE}, 3\), found"),
        (np.zeros((1, SIZE, SIZE, 4), np.uint8), 1, ValueError, "must have shape"),
        (np.zeros((1, SIZE, SIZE + 1, 3), np.uint8), 1, ValueError, "must have shape"),
        (np.zeros((1, SIZE, SIZE, 3), np.uint8), 3, ValueError, "steps is 3; model tiny offers 1, 2, 4"),
        (np.zeros((0, SIZE, SIZE, 3), np.uint8), 0, ValueError, "steps is 0"),
    ],
)
def test_bad_arguments(crops: Any, steps: int, kind: type[Exception], words: str, restorer: Restorer) -> None:
    with pytest.raises(kind, match=words):
        restorer.restore(crops, steps)
    with pytest.raises(kind, match=words):
        restorer.correction(crops, steps)


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_an_output_that_is_not_finite(value: float, wrap: Any, face_crops: np.ndarray) -> None:
    def spoil(x_t: Any, y: Any, t: float) -> Any:
        x0 = y.copy()
        x0[-1, 1, 3, 5] = value
        return x0

    with pytest.raises(EngineError, match=r"engine openvino \(f32\) gave values that are not finite"):
        wrap(spoil)[0].correction(face_crops)


def test_it_says_what_runs_and_why(restorer: Restorer, tiny_folder: Path) -> None:
    assert (restorer.engine, restorer.precision, restorer.device) == ("onnxruntime", "f32", "cpu")
    assert restorer.reason == "asked for by name" and restorer.passed_over == ()
    assert restorer.manifest.name == "tiny" and restorer.size == SIZE
    with open_restorer(tiny_folder) as automatic:
        assert automatic.reason.startswith("the fastest that works here")
        assert {"tensorrt", "tensorrt-rtx"} <= {name for name, _ in automatic.passed_over}


def test_closing_closes_the_engine(wrap: Any) -> None:
    restorer, backend = wrap(lambda x_t, y, t: y)
    with restorer:
        restorer.warm_up((1, 3))
        assert [len(y) for _, y, _ in backend.calls] == [1, 3]
    assert backend.closed


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        (
            {"kappa": 0.2},
            "model 'tiny' was trained with kappa 0.2, this version samples with 0.08; use a model exported",
        ),
        ({"align_template": [[0.4, 0.4], [0.6, 0.4], [0.5, 0.5], [0.4, 0.6], [0.6, 0.6]]}, "this version aligns to"),
    ],
)
def test_a_model_of_another_kind_is_refused(
    changes: dict[str, Any], words: str, tiny_folder: Path, tmp_path: Path
) -> None:
    folder = Path(shutil.copytree(tiny_folder, tmp_path / "copy"))
    values = json.loads((folder / "model.json").read_text())
    (folder / "model.json").write_text(json.dumps({**values, **changes}))
    with pytest.raises(ModelError, match=words):
        open_restorer(folder)


def test_unknown_model_and_engine(tiny_folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("IDM_RT_MODELS", str(tiny_folder.parent))
    with pytest.raises(ModelError, match=r"unknown model 'huge' .*choose one of: tiny"):
        open_restorer("huge")
    with pytest.raises(EngineError, match="unknown engine 'abacus'"):
        open_restorer("tiny", engine="abacus")
