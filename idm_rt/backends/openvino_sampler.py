"""All steps of a restoration as one OpenVINO graph: 8-bit crop in, correction out.

What numpy does around a denoising step (to planes, scale, mix, clip, subtract, back to pixels) becomes part of the
graph, where it is fused with its neighbours and uses every thread; and since the time of each step is a constant there,
the time embedding folds into the biases.
"""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import openvino as ov
from numpy.typing import NDArray
from openvino import opset13 as op

from idm_rt.diffusion import KAPPA, time_grid


def sampler_graph(core: ov.Core, path: Path, size: int, eps: NDArray[np.float32], steps: int) -> ov.Model:
    """The graph of ``idm_rt.diffusion.sample``.

    Args:
        core: reads the file.
        path: ONNX file of the denoiser with inputs x_t, y and t.
        size: S, side of the crop in px.
        eps: (1, 3, S, S) noise.
        steps: evaluations of the denoiser.

    Returns:
        A model from (1, S, S, 3) uint8 RGB to (1, S, S, 3) float32, restored minus crop in 8-bit steps.
    """
    crop = op.parameter([1, size, size, 3], np.uint8, name="crop")
    planes = op.transpose(op.convert(crop, "f32"), op.constant(np.array([0, 3, 1, 2])))
    y = op.subtract(op.multiply(planes, _scalar(1 / 127.5)), _scalar(1.0))
    x0 = y
    for t in time_grid(steps):
        x0 = _denoised(core, path, size, _state(x0, y, eps, t), y, t)
    change = op.multiply(op.subtract(op.clamp(x0, -1.0, 1.0), y), _scalar(127.5))
    pixels = op.transpose(change, op.constant(np.array([0, 2, 3, 1])))
    return ov.Model([op.result(pixels)], [crop], "sampler")


def _scalar(value: float) -> ov.Node:
    return op.constant(np.float32(value))


def _state(x0: ov.Node, y: ov.Node, eps: NDArray[np.float32], t: float) -> ov.Node:
    """Equation (1) of ``idm_rt.diffusion``; at t = 1 the estimate does not count."""
    noise = op.constant(np.float32(KAPPA * math.sqrt(t)) * eps)
    if t == 1.0:
        return op.add(y, noise)
    mixed = op.add(op.multiply(x0, _scalar(1.0 - t)), op.multiply(y, _scalar(t)))
    return op.add(mixed, noise)


def _denoised(core: ov.Core, path: Path, size: int, x_t: ov.Node, y: ov.Node, t: float) -> ov.Output:
    """A copy of the denoiser whose inputs are these."""
    denoiser = core.read_model(path)
    denoiser.reshape({"x_t": [1, 3, size, size], "y": [1, 3, size, size], "t": [1]})
    given = {"x_t": x_t, "y": y, "t": op.constant(np.array([t], np.float32))}
    for port in denoiser.inputs:
        port.replace(given[port.any_name].output(0))
    return denoiser.outputs[0].node.input_value(0)
