"""OpenVINO on the CPU: the default engine. Nothing but this file and ``openvino_sampler`` imports openvino.

Measured on two AVX2 cores (f32, the shipped shape of network), as shares of the time of the choice made here:

* compiled for a fixed N = 1: 1.00; with dynamic N: 1.11.
* two faces as one batch of two: 0.96 of two single runs. So batches are looped over: one compilation, one set of
  buffers, no pause of 0.1 s when a second face appears, and a result that cannot depend on the batch.
* one step as one graph, with t a constant and the arithmetic around the network inside it: 0.94 to 0.96 of the whole
  restoration. Taken in f32 for one step, which is what a CPU runs.
* reading a compiled model from CACHE_DIR: 0.15 s instead of 0.27 s at start-up. Not taken: no state on disk.
"""

from __future__ import annotations

import functools
import sys
import tempfile
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from idm_rt.backends.base import Backend, DeviceSampler, check_batch, not_finite, open_failure, run_failure
from idm_rt.cpu_info import available_cpus
from idm_rt.errors import EngineError
from idm_rt.model_manifest import ModelManifest

# Importing openvino sends a report of the import over the network, through openvino_telemetry, from a fork of this
# process, which may hang when threads run. Without that package it sends nothing. Who wants it imports it before.
sys.modules.setdefault("openvino_telemetry", None)  # type: ignore[arg-type]
import openvino as ov  # noqa: E402 - after the line above

from idm_rt.backends.openvino_sampler import sampler_graph  # noqa: E402 - the same

# int8 is in the file (quantize and dequantize nodes); what is left of the network runs in f32.
_PRECISIONS = {"f32": ov.Type.f32, "bf16": ov.Type.bf16, "int8": ov.Type.f32}


@functools.cache
def the_core() -> ov.Core:
    """The one OpenVINO core of this process, which is never freed.

    Its CPU plugin gives the thread that opens it a stack for signal handlers and takes it away when it is freed. Of two
    cores that are freed in the order in which they were opened, the second puts back the stack that the first has
    unmapped, and the next Ctrl-C is a segmentation fault.
    """
    return ov.Core()


class OpenVinoBackend(Backend):
    """An ONNX denoiser compiled for this CPU."""

    name = "openvino"
    device = "cpu"

    def __init__(self, model: Path, size: int, threads: int | None = None, precision: str | None = None) -> None:
        """Compile the model.

        Args:
            model: the ONNX file.
            size: side of the crop in px.
            threads: inference threads; None = every CPU this process may use.
            precision: "f32", "bf16", or "int8" for a quantised file; None = bf16 where the CPU has it in hardware,
                else f32.

        Raises:
            EngineError: OpenVINO refuses the model, or the precision is not one of these.
        """
        self.size = size
        try:
            core = the_core()
            self.precision = precision or best_precision(core)
            shapes = {"x_t": [1, 3, size, size], "y": [1, 3, size, size], "t": [1]}
            self._request: ov.InferRequest | None = _compile(core, model, shapes, threads, self.precision)
        except RuntimeError as error:
            raise open_failure(self.name, error) from error
        self._time = np.zeros(1, np.float32)
        self._model, self._threads = model, threads
        self._whole: ov.InferRequest | None = None  # one step as one graph, for the noise ``_eps``
        self._eps: NDArray[np.float32] | None = None

    def on_device(self, steps: int) -> DeviceSampler | None:
        """One step only: a graph for each number of steps would cost a second and 15 MB per step when it is opened.

        Not in bf16 either, where the arithmetic around the network would lose precision with it.
        """
        return self if steps == 1 and self.precision != "bf16" else None

    def correction(self, crops: NDArray[np.uint8], eps: NDArray[np.float32], steps: int) -> NDArray[np.float32]:
        """See ``DeviceSampler.correction``; bit for bit the same for a crop in any batch."""
        if self._request is None:
            raise ValueError("the backend is closed")
        out = np.empty(crops.shape, np.float32)
        try:
            if self._whole is None or eps is not self._eps:
                graph = sampler_graph(the_core(), self._model, self.size, eps, steps)
                self._whole, self._eps = _request(the_core(), graph, self._threads, self.precision), eps
            for i in range(len(crops)):
                crop = np.ascontiguousarray(crops[i : i + 1])
                out[i] = self._whole.infer([crop], share_inputs=True, share_outputs=True)[0][0]
        except RuntimeError as error:
            raise run_failure(self, error) from error
        if not np.isfinite(out).all():
            raise not_finite(self)
        return out

    def denoise(self, x_t: NDArray[np.float32], y: NDArray[np.float32], t: float) -> NDArray[np.float32]:
        check_batch(x_t, y, self.size)
        if self._request is None:
            raise ValueError("the backend is closed")
        x_t, y = np.ascontiguousarray(x_t, np.float32), np.ascontiguousarray(y, np.float32)
        x0 = np.empty_like(y)
        self._time[0] = t
        try:
            for i in range(len(y)):
                inputs = {"x_t": x_t[i : i + 1], "y": y[i : i + 1], "t": self._time}
                # Nothing is copied on the way in; the output is a view of the engine's buffer, copied into x0.
                x0[i] = self._request.infer(inputs, share_inputs=True, share_outputs=True)[0][0]
        except RuntimeError as error:
            raise run_failure(self, error) from error
        return x0

    def close(self) -> None:
        self._request = self._whole = None


def best_precision(core: ov.Core) -> str:
    """bf16 only where the CPU computes it natively: OpenVINO would take it there unasked, and emulate nowhere."""
    return "bf16" if "BF16" in core.get_property("CPU", "OPTIMIZATION_CAPABILITIES") else "f32"


def compile_model(model: bytes, shape: list[int], threads: int | None = None) -> ov.InferRequest:
    """A TensorFlow Lite net of one input, compiled for this CPU in f32.

    Args:
        model: the .tflite file's bytes.
        shape: of the input.
        threads: inference threads; None = every CPU this process may use.

    Raises:
        EngineError: OpenVINO refuses the net, or there is no temporary folder to read it from.
    """
    try:
        with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder:  # it reads .tflite from files alone
            path = Path(folder, "net.tflite")
            path.write_bytes(model)
            return _compile(the_core(), path, shape, threads, "f32")
    except (RuntimeError, OSError) as error:
        raise open_failure("openvino", error) from error


def _compile(
    core: ov.Core, path: Path, shapes: dict[str, list[int]] | list[int], threads: int | None, precision: str
) -> ov.InferRequest:
    if precision not in _PRECISIONS:
        raise EngineError(f"engine openvino has no precision {precision!r}; choose one of {', '.join(_PRECISIONS)}")
    model = core.read_model(path)
    model.reshape(shapes)
    return _request(core, model, threads, precision)


def _request(core: ov.Core, model: ov.Model, threads: int | None, precision: str) -> ov.InferRequest:
    properties = {
        "PERFORMANCE_HINT": "LATENCY",
        "INFERENCE_PRECISION_HINT": _PRECISIONS[precision],
        "INFERENCE_NUM_THREADS": threads or available_cpus(),
    }
    return core.compile_model(model, "CPU", properties).create_infer_request()


def open_model(manifest: ModelManifest, threads: int | None = None, precision: str | None = None) -> Backend:
    """Open a shipped model; see ``OpenVinoBackend``.

    "int8" needs a model that comes with such a file; without a wish for another precision it is taken then, because it
    is shipped only where it is both faster and within the limits (docs/adr/0012-int8.md).
    """
    if precision is None and manifest.has("onnx_int8"):
        precision = "int8"
    kind = "onnx_int8" if precision == "int8" else "onnx"
    return OpenVinoBackend(manifest.verified_file(kind), manifest.crop_size, threads, precision)
