"""OpenVINO on the CPU: the default engine. Nothing but this file and ``openvino_sampler`` imports openvino.

Measured on two AVX2 cores (f32, idm-face-256 0.2.0), as shares of the time of the choice made here:

* compiled for a fixed N = 1: 1.00; with dynamic N: 1.11.
* two faces as one batch of two: 0.96 of two single runs. So batches are looped over: one compilation, one set of
  buffers, no pause of 0.1 s when a second face appears, and a result that cannot depend on the batch.
* one step as one graph, with t a constant and the arithmetic around the network inside it: 0.94 to 0.96 of the whole
  restoration. Taken for one step, which is what a CPU runs.
* reading a compiled model from CACHE_DIR: 0.15 s instead of 0.27 s at start-up. Not taken: no state on disk.

Measured on two cores with AMX (the same model, one step, in turns beside other work; the fastest twentieth of 250 runs,
and the distance from f32 on the golden crops):

* bf16 as one graph 4.1 ms, 78 dB; step by step 4.8 ms, 78 dB.
* int8 with the rest of the network in bf16 4.1 ms, 58 dB; in f32 5.4 ms, 59 dB.
"""

from __future__ import annotations

import functools
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from idm_rt.backends.base import Backend, DeviceSampler, check_batch, not_finite, open_failure, run_failure
from idm_rt.cpu_info import available_cpus
from idm_rt.errors import EngineError
from idm_rt.machine import cpu_features
from idm_rt.model_manifest import ModelManifest

# Importing openvino sends a report of the import over the network, through openvino_telemetry, from a fork of this
# process, which may hang when threads run. Without that package it sends nothing. Who wants it imports it before.
sys.modules.setdefault("openvino_telemetry", None)  # type: ignore[arg-type]
import openvino as ov  # noqa: E402 - after the line above

from idm_rt.backends.openvino_sampler import sampler_graph  # noqa: E402 - the same

_PRECISIONS = ("f32", "bf16", "int8")


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
            EngineError: OpenVINO refuses the model, the precision is not one of these, or bf16 is not in this CPU.
        """
        self.size = size
        try:
            core = the_core()
            self.precision, self.precision_reason = best_precision(has_bf16(core), cpu_features(), has_int8=False)
            if precision is not None:
                self.precision, self.precision_reason = precision, "asked for"
            shapes = {"x_t": [1, 3, size, size], "y": [1, 3, size, size], "t": [1]}
            self._request: ov.InferRequest | None = _compile(core, model, shapes, threads, self.precision)
        except RuntimeError as error:
            raise open_failure(self.name, error) from error
        self._time = np.zeros(1, np.float32)
        self._model, self._threads = model, threads
        self._whole: ov.InferRequest | None = None  # one step as one graph, for the noise ``_eps``
        self._eps: NDArray[np.float32] | None = None

    def on_device(self, steps: int) -> DeviceSampler | None:
        """One step only: a graph for each number of steps would cost a second and 15 MB per step when it is opened."""
        return self if steps == 1 else None

    def correction(self, crops: NDArray[np.uint8], eps: NDArray[np.float32], steps: int) -> NDArray[np.float32]:
        """See ``DeviceSampler.correction``; bit for bit the same for a crop in any batch."""
        if self._request is None:
            raise ValueError("the backend is closed")
        out = np.empty(crops.shape, np.float32)
        try:
            if self._whole is None or eps is not self._eps:
                graph = sampler_graph(the_core(), self._model, self.size, eps, steps)
                self._whole, self._eps = compile_graph(the_core(), graph, self._threads, self.precision), eps
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


def has_bf16(core: ov.Core) -> bool:
    """Whether the CPU computes bf16 natively. Elsewhere OpenVINO would compute f32 and say bf16."""
    return "BF16" in core.get_property("CPU", "OPTIMIZATION_CAPABILITIES")


def best_precision(bf16: bool, features: Sequence[str], has_int8: bool) -> tuple[str, str]:
    """The precision to take where none is asked for, and why; the figures are in the text of this module.

    Args:
        bf16: the CPU computes it natively.
        features: of the CPU, as ``idm_rt.machine.cpu_features`` names them.
        has_int8: the model comes with such a file.
    """
    if bf16 and "amx_bf16" in features:
        return "bf16", "this CPU has AMX: as fast as int8 there, and nearer to f32"
    if has_int8:
        return "int8", "the model comes with an int8 file, which is faster than f32 and within its limits"
    if bf16:
        return "bf16", "this CPU computes it in hardware, and the model comes without an int8 file"
    return "f32", "this CPU has no bf16, and the model comes without an int8 file"


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
    model = core.read_model(path)
    model.reshape(shapes)
    return compile_graph(core, model, threads, precision)


def compile_graph(core: ov.Core, model: ov.Model, threads: int | None, precision: str) -> ov.InferRequest:
    """A graph compiled for this CPU.

    Raises:
        EngineError: OpenVINO has no such precision, or the CPU has no bf16.
    """
    if precision not in _PRECISIONS:
        raise EngineError(f"engine openvino has no precision {precision!r}; choose one of {', '.join(_PRECISIONS)}")
    if precision == "bf16" and not has_bf16(core):
        raise EngineError("this CPU does not compute bf16 (it has neither AVX512-BF16 nor AMX); choose f32 or int8")
    # int8 is in the file (quantize and dequantize nodes): the type is that of the rest of the network.
    half = precision != "f32" and has_bf16(core)
    properties = {
        "PERFORMANCE_HINT": "LATENCY",
        "INFERENCE_PRECISION_HINT": ov.Type.bf16 if half else ov.Type.f32,
        "INFERENCE_NUM_THREADS": threads or available_cpus(),
    }
    return core.compile_model(model, "CPU", properties).create_infer_request()


def open_model(manifest: ModelManifest, threads: int | None = None, precision: str | None = None) -> Backend:
    """Open a shipped model; see ``OpenVinoBackend``.

    "int8" needs a model that comes with such a file, which is shipped only where it is both faster than f32 and within
    the limits (docs/adr/0012-int8.md).

    Raises:
        EngineError: see ``OpenVinoBackend``; or int8 is asked for and the model has none.
    """
    has_int8 = manifest.has("onnx_int8")
    if precision == "int8" and not has_int8:
        raise EngineError(f"model {manifest.name!r} comes without an int8 file; choose f32 or bf16")
    chosen, reason = precision, "asked for"
    if chosen is None:
        chosen, reason = best_precision(has_bf16(the_core()), cpu_features(), has_int8)
    kind = "onnx_int8" if chosen == "int8" else "onnx"
    backend = OpenVinoBackend(manifest.verified_file(kind), manifest.crop_size, threads, chosen)
    backend.precision_reason = reason
    return backend
