"""ONNX Runtime in f32: on the CPU, the fall-back where OpenVINO has no wheel; on a GPU with its CUDA package.

The only file that imports onnxruntime.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnxruntime as ort
from numpy.typing import NDArray
from onnxruntime.capi import onnxruntime_pybind11_state as ort_state

from idm_rt.backends.base import Backend, check_batch, open_failure, run_failure
from idm_rt.backends.nvidia import cuda_device_count
from idm_rt.cpu_info import available_cpus
from idm_rt.errors import EngineError, ModelError
from idm_rt.model_manifest import ModelManifest

# The binding's own exceptions share no base class below Exception; which there are differs between versions.
_FAULTS: tuple[type[Exception], ...] = (
    RuntimeError,
    *(kind for kind in vars(ort_state).values() if isinstance(kind, type) and issubclass(kind, Exception)),
)


_CUDA = "CUDAExecutionProvider"


class OnnxRuntimeBackend(Backend):
    """An ONNX denoiser in an inference session."""

    name = "onnxruntime"
    precision = "f32"

    def __init__(self, model: Path, size: int, threads: int | None = None) -> None:
        """Open a session.

        Args:
            model: the ONNX file.
            size: side of the crop in px.
            threads: inference threads; None = every CPU this process may use.

        Raises:
            EngineError: ONNX Runtime refuses the model.
        """
        self.size = size
        options = ort.SessionOptions()
        # An explicit number also keeps ONNX Runtime from pinning its threads, which fails in limited containers.
        options.intra_op_num_threads = threads or available_cpus()
        # Threads that spin while they wait take the CPUs from the stages after this one: with another process at work
        # beside it, the median run and the work that follows both took twice as long as without.
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        options.log_severity_level = 3  # errors only
        try:
            self._session: ort.InferenceSession | None = ort.InferenceSession(
                str(model), options, providers=providers(cuda_device_count() > 0)
            )
        except _FAULTS as error:
            raise open_failure(self.name, error) from error
        # Asked for CUDA, it may have logged why it cannot and gone on with the CPU.
        self.device = "cuda:0" if self._session.get_providers()[0] == _CUDA else "cpu"
        _check_signature(self._session, model, size)

    def denoise(self, x_t: NDArray[np.float32], y: NDArray[np.float32], t: float) -> NDArray[np.float32]:
        check_batch(x_t, y, self.size)
        if self._session is None:
            raise ValueError("the backend is closed")
        if len(y) == 0:
            return np.empty_like(y)
        inputs = {
            "x_t": np.ascontiguousarray(x_t, np.float32),
            "y": np.ascontiguousarray(y, np.float32),
            "t": np.full(len(y), t, np.float32),
        }
        try:
            return self._session.run(["x0"], inputs)[0]
        except _FAULTS as error:
            raise run_failure(self, error) from error

    def close(self) -> None:
        self._session = None


def providers(gpu: bool) -> list[str | tuple[str, dict[str, str]]]:
    """Execution providers to ask for, best first. TF32 is off: it would be called f32 and be off by more than fp16."""
    if gpu and _CUDA in ort.get_available_providers():
        return [(_CUDA, {"use_tf32": "0"}), "CPUExecutionProvider"]
    return ["CPUExecutionProvider"]


def _check_signature(session: ort.InferenceSession, model: Path, size: int) -> None:
    """Raise ModelError unless the file holds a denoiser for crops of this size; the batch may be dynamic."""
    found = {value.name: tuple(value.shape[1:]) for value in (*session.get_inputs(), *session.get_outputs())}
    picture = (3, size, size)
    expected = {"x_t": picture, "y": picture, "t": (), "x0": picture}
    if found != expected:
        raise ModelError(f"{model} has inputs and outputs {found}, expected {expected}; export the model again")


def open_model(manifest: ModelManifest, threads: int | None = None, precision: str | None = None) -> Backend:
    """Open a shipped model; see ``OnnxRuntimeBackend``. ``precision`` may be "f32" or None.

    Raises:
        EngineError: another precision.
    """
    if precision not in (None, "f32"):
        raise EngineError(f"engine onnxruntime has no precision {precision!r}; choose f32")
    return OnnxRuntimeBackend(manifest.verified_file("onnx"), manifest.crop_size, threads)
