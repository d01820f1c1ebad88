"""One denoising step as an ONNX graph that begins and ends with 8-bit pixels, so that all of it runs on the GPU.

Around the fp16 denoiser of ``export.export_onnx`` (x_t, y, t -> x0) it puts

    y          = crops / 127.5 - 1, from (N, S, S, 3) to (N, 3, S, S)
    x_t        = a state + b y + c eps                  equation (1) of idm_rt.diffusion, (a, b, c) per step
    correction = 127.5 (clip(x0, -1, 1) - y), back to (N, S, S, 3)
    level      = mean |x0| of each face                 not finite exactly when some value of x0 is not

``state`` is the x0 of the step before; at the first step a is 0. The result of several steps is the last correction.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from idm_rt.errors import ModelError

OPSET = 20
INPUTS = ("crops", "state", "eps", "mix", "t")
OUTPUTS = ("x0", "correction", "level")


def step_graph(path: Path, size: int) -> onnx.ModelProto:
    """Read a denoiser and wrap it.

    Args:
        path: ONNX file with fp16 pictures, opset 20.
        size: S, side of the crops in px.

    Raises:
        ModelError: the file is not such a denoiser.
    """
    try:
        model = onnx.load(str(path))
        onnx.checker.check_model(model)
    except Exception as error:  # protobuf and checker share no base class, and there are no others to expect
        raise ModelError(f"{path} is not an ONNX model ({' '.join(str(error).split())}); export it again") from error
    _check(model, path, size)
    graph = model.graph
    nodes = [*_before(), *graph.node, *_after()]
    half, n = TensorProto.FLOAT16, "n"
    inputs = [
        helper.make_tensor_value_info("crops", TensorProto.UINT8, [n, size, size, 3]),
        helper.make_tensor_value_info("state", half, [n, 3, size, size]),
        helper.make_tensor_value_info("eps", half, [1, 3, size, size]),
        helper.make_tensor_value_info("mix", half, [3, 1, 1, 1]),
        helper.make_tensor_value_info("t", TensorProto.FLOAT, [n]),
    ]
    outputs = [
        helper.make_tensor_value_info("x0", half, [n, 3, size, size]),
        helper.make_tensor_value_info("correction", half, [n, size, size, 3]),
        helper.make_tensor_value_info("level", TensorProto.FLOAT, [n]),
    ]
    wrapped = helper.make_graph(nodes, "idm_step", inputs, outputs, [*graph.initializer, *_constants()])
    return helper.make_model(wrapped, opset_imports=model.opset_import, ir_version=model.ir_version)


def _check(model: onnx.ModelProto, path: Path, size: int) -> None:
    opset = next((entry.version for entry in model.opset_import if entry.domain in ("", "ai.onnx")), None)
    if opset is None or opset > OPSET:
        raise ModelError(f"{path} has opset {opset}, expected {OPSET} or lower; export it with this version")
    found = {value.name: _type_of(value) for value in (*model.graph.input, *model.graph.output)}
    picture = (TensorProto.FLOAT16, (3, size, size))
    expected = {"x_t": picture, "y": picture, "t": (TensorProto.FLOAT, ()), "x0": picture}
    if found != expected:
        raise ModelError(f"{path} has inputs and outputs {found}, expected {expected}; export the model again")


def _type_of(value: onnx.ValueInfoProto) -> tuple[int, tuple[int, ...]]:
    """Element type and shape without the batch."""
    kind = value.type.tensor_type
    return kind.elem_type, tuple(d.dim_value for d in kind.shape.dim[1:])


def _constants() -> list[onnx.TensorProto]:
    values = {
        "idm_scale": np.float16(1 / 127.5),
        "idm_steps": np.float16(127.5),
        "idm_one": np.float16(1),
        "idm_minus_one": np.float16(-1),
        "idm_axes": np.array([1, 2, 3], np.int64),
    }
    return [numpy_helper.from_array(np.asarray(value), name) for name, value in values.items()]


def _before() -> list[onnx.NodeProto]:
    """Nodes that make y and x_t."""
    node = helper.make_node
    return [
        node("Cast", ["crops"], ["idm_crops"], "idm_crops", to=TensorProto.FLOAT16),
        node("Transpose", ["idm_crops"], ["idm_planes"], "idm_planes", perm=[0, 3, 1, 2]),
        node("Mul", ["idm_planes", "idm_scale"], ["idm_scaled"], "idm_scaled"),
        node("Sub", ["idm_scaled", "idm_one"], ["y"], "idm_y"),
        node("Split", ["mix"], ["idm_a", "idm_b", "idm_c"], "idm_mix", axis=0, num_outputs=3),
        node("Mul", ["state", "idm_a"], ["idm_a_state"], "idm_a_state"),
        node("Mul", ["y", "idm_b"], ["idm_b_y"], "idm_b_y"),
        node("Mul", ["eps", "idm_c"], ["idm_c_eps"], "idm_c_eps"),
        node("Add", ["idm_a_state", "idm_b_y"], ["idm_mean"], "idm_mean"),
        node("Add", ["idm_mean", "idm_c_eps"], ["x_t"], "idm_x_t"),
    ]


def _after() -> list[onnx.NodeProto]:
    """Nodes that make the correction and the level from x0. The level is f32: a sum over a face overflows in fp16."""
    node = helper.make_node
    return [
        node("Clip", ["x0", "idm_minus_one", "idm_one"], ["idm_clipped"], "idm_clipped"),
        node("Sub", ["idm_clipped", "y"], ["idm_difference"], "idm_difference"),
        node("Mul", ["idm_difference", "idm_steps"], ["idm_in_steps"], "idm_in_steps"),
        node("Transpose", ["idm_in_steps"], ["correction"], "idm_correction", perm=[0, 2, 3, 1]),
        node("Cast", ["x0"], ["idm_x0_f32"], "idm_level_cast", to=TensorProto.FLOAT),
        node("Abs", ["idm_x0_f32"], ["idm_abs"], "idm_level_abs"),
        node("ReduceMean", ["idm_abs", "idm_axes"], ["level"], "idm_level_mean", keepdims=0),
    ]
