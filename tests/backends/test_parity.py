"""The same network gives the same picture on every engine, within the tolerance of its manifest."""

from __future__ import annotations

import math
from pathlib import Path

import cv2
import numpy as np
import pytest

from idm_rt.backends import open_backend
from idm_rt.config import DEFAULT_MODEL
from idm_rt.diffusion import KAPPA
from idm_rt.errors import ModelError
from idm_rt.model_manifest import ModelManifest, load_manifest
from idm_rt.model_store import find_model
from idm_rt.restorer import to_planes

TIMES = (1.0, 0.5, 0.25)


def psnr_db(a: np.ndarray, b: np.ndarray) -> float:
    """PSNR of pictures in -1..1."""
    error = float(np.mean((np.asarray(a, np.float64) - b) ** 2))
    return math.inf if error == 0 else 10 * math.log10(4 / error)


@pytest.fixture(params=["tiny", "shipped"])
def manifest(request: pytest.FixtureRequest, tiny_folder: Path) -> ModelManifest:
    if request.param == "tiny":
        return load_manifest(tiny_folder)
    return shipped_model()


def shipped_model() -> ModelManifest:
    try:
        return find_model(DEFAULT_MODEL)
    except ModelError as error:
        pytest.skip(f"the default model is not in this checkout: {error}")


def inputs(manifest: ModelManifest, crops: np.ndarray) -> tuple[np.ndarray, list[tuple[float, np.ndarray]]]:
    """y (N, 3, S, S) and a state for each of TIMES."""
    size = manifest.crop_size
    y = to_planes(np.stack([cv2.resize(crop, (size, size)) for crop in crops]))
    noise = np.random.default_rng(1).standard_normal(y.shape, dtype=np.float32)
    return y, [(t, y + np.float32(KAPPA * math.sqrt(t)) * noise) for t in TIMES]


def denoise(engine: str, manifest: ModelManifest, crops: np.ndarray, precision: str | None) -> np.ndarray:
    """Estimates at several times, stacked: (len(TIMES) * N, 3, S, S)."""
    y, states = inputs(manifest, crops)
    with open_backend(engine, manifest, precision=precision).backend as backend:
        return np.concatenate([backend.denoise(x_t, y, t) for t, x_t in states])


@pytest.mark.parametrize("engine", ["onnxruntime", "openvino"])
def test_f32_engines_agree_with_the_reference(engine: str, manifest: ModelManifest, face_crops: np.ndarray) -> None:
    reference = denoise("torch", manifest, face_crops, "f32")
    assert psnr_db(denoise(engine, manifest, face_crops, "f32"), reference) >= manifest.tolerance["f32_db"]


def test_the_best_precision_of_openvino_is_within_its_tolerance(
    manifest: ModelManifest, face_crops: np.ndarray
) -> None:
    with open_backend("openvino", manifest).backend as backend:
        precision = backend.precision
    reference = denoise("torch", manifest, face_crops, "f32")
    assert psnr_db(denoise("openvino", manifest, face_crops, None), reference) >= manifest.tolerance[f"{precision}_db"]


def test_torch_in_fp16_is_within_the_tolerance(tiny_folder: Path, face_crops: np.ndarray) -> None:
    """On the CPU, which emulates fp16 so slowly that only the small network is tried."""
    manifest = load_manifest(tiny_folder)
    reference = denoise("torch", manifest, face_crops, "f32")
    assert psnr_db(denoise("torch", manifest, face_crops, "fp16"), reference) >= manifest.tolerance["fp16_db"]


def test_the_shipped_fp16_file_is_within_its_tolerance(face_crops: np.ndarray) -> None:
    import onnxruntime

    manifest = shipped_model()
    if not manifest.has("onnx_fp16"):
        pytest.skip("the default model has no onnx_fp16 file")
    session = onnxruntime.InferenceSession(manifest.verified_file("onnx_fp16"), providers=["CPUExecutionProvider"])
    y, states = inputs(manifest, face_crops)
    estimates = [
        session.run(["x0"], {"x_t": x_t.astype(np.float16), "y": y.astype(np.float16), "t": np.full(len(y), t, "f4")})[
            0
        ]
        for t, x_t in states
    ]
    reference = denoise("onnxruntime", manifest, face_crops, "f32")
    assert psnr_db(np.concatenate(estimates), reference) >= manifest.tolerance["fp16_db"]


def test_the_comparison_can_fail(tiny_folder: Path, face_crops: np.ndarray) -> None:
    """Neither the network nor either of its inputs is idle, so the agreement above is not for free."""
    y = to_planes(face_crops)
    with open_backend("onnxruntime", load_manifest(tiny_folder)).backend as backend:
        estimate = backend.denoise(y + 0.05, y, 1.0)
        assert psnr_db(estimate, y) < 40
        assert psnr_db(estimate, backend.denoise(y, y, 1.0)) < 50
        assert psnr_db(estimate, backend.denoise(y + 0.05, y, 0.5)) < 50
