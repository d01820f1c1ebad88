"""Weights in half precision: rounded once, and then stored in 16 bits by every file of a model.

The f32 graph keeps them as fp16 constants behind a Cast, which every runtime folds when it loads: half the bytes, the
same numbers. What fp16 does not hold exactly stays f32.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

if TYPE_CHECKING:
    import onnx

EMBEDDING = "time."  # these layers stay f32 in every file, see ``export.export_onnx.HalfDenoiser``
_STORED = ".fp16"  # suffix of a packed constant
_SMALLEST = 256  # fewer numbers are not worth a node


def rounded_to_half(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The state of a ``DenoiserNet`` with all weights in fp16 but those of the time embedding."""
    return {
        name: value.contiguous() if name.startswith(EMBEDDING) else value.to(torch.float16).contiguous()
        for name, value in state.items()
    }


def pack(model: onnx.ModelProto) -> None:
    """Store the f32 constants that are fp16 numbers as such, in place."""
    from onnx import TensorProto, helper, numpy_helper

    graph, casts = model.graph, []
    for constant in graph.initializer:
        if constant.data_type != TensorProto.FLOAT:
            continue
        values = numpy_helper.to_array(constant)
        with np.errstate(over="ignore"):
            half = values.astype(np.float16)
        if values.size < _SMALLEST or not np.array_equal(half.astype(np.float32), values):
            continue
        name = constant.name
        constant.CopyFrom(numpy_helper.from_array(half, name + _STORED))
        casts.append(helper.make_node("Cast", [name + _STORED], [name], to=TensorProto.FLOAT))
    nodes = [*casts, *graph.node]
    del graph.node[:]
    graph.node.extend(nodes)


def unpack(model: onnx.ModelProto) -> None:
    """The inverse of ``pack``, in place: for tools that look for weights among the constants."""
    from onnx import numpy_helper

    graph = model.graph
    for constant in graph.initializer:
        if constant.name.endswith(_STORED):
            values = numpy_helper.to_array(constant).astype(np.float32)
            constant.CopyFrom(numpy_helper.from_array(values, constant.name.removesuffix(_STORED)))
    nodes = [node for node in graph.node if not (node.op_type == "Cast" and node.input[0].endswith(_STORED))]
    del graph.node[:]
    graph.node.extend(nodes)
