"""A recogniser small enough to work out by hand, written as the real one's TensorFlow.js graph is."""

from __future__ import annotations

import base64
import json
from pathlib import Path

import numpy as np

CHANNELS = 4


def text(value: str) -> dict:
    return {"s": base64.b64encode(value.encode()).decode()}


def convolution(name, op, inputs, stride=1, padding="SAME", relu=False):
    fused = ["BiasAdd", "Relu"] if relu else ["BiasAdd"]
    attr = {
        "strides": {"list": {"i": ["1", str(stride), str(stride), "1"]}},
        "padding": text(padding),
        "fused_ops": {"list": {"s": [text(value)["s"] for value in fused]}},
    }
    return {"name": name, "op": op, "input": inputs, "attr": attr}


def node(name, op, *inputs):
    return {"name": name, "op": op, "input": list(inputs)}


def spelt_out_prelu(name, x, relu):
    return [
        node(f"{name}/abs", "Abs", x),
        node(f"{name}/sub", "Sub", x, f"{name}/abs"),
        node(f"{name}/scaled", "Mul", f"{name}/sub", f"{name}/a"),
        node(name, "Add", relu, f"{name}/scaled"),
    ]


def write_model(folder: Path, nodes: list[dict], constants: dict[str, np.ndarray]) -> Path:
    entries = [{"name": k, "shape": list(v.shape), "dtype": str(v.dtype)} for k, v in constants.items()]
    const = [{"name": key, "op": "Const"} for key in constants]
    manifest = [{"paths": ["net.bin"], "weights": entries}]
    model = {"modelTopology": {"node": const + nodes}, "weightsManifest": manifest}
    (folder / "net.bin").write_bytes(b"".join(value.tobytes() for value in constants.values()))
    (folder / "net.json").write_text(json.dumps(model))
    return folder / "net.json"


def write_tiny_recogniser(folder: Path) -> tuple[Path, dict[str, np.ndarray]]:
    """(path, constants) of: 3x3 convolution of stride 2, PReLU, 56x56 depthwise of one place, PReLU, unit length."""
    rng = np.random.default_rng(0)
    constants = {
        "w0": rng.normal(0, 0.5, (3, 3, 3, CHANNELS)).astype(np.float32),
        "b0": rng.normal(0, 0.5, CHANNELS).astype(np.float32),
        "p0/a": rng.normal(0, 0.5, CHANNELS).astype(np.float32),
        "w1": rng.normal(0, 0.05, (56, 56, CHANNELS, 1)).astype(np.float32),
        "b1": np.zeros(CHANNELS, np.float32),
        "p1/a": np.full(CHANNELS, -0.4, np.float32),
        "axis": np.array([1], np.int32),
        "floor": np.array(1e-10, np.float32),
    }
    nodes = [
        node("embeddings", "Mul", "flat", "rsqrt"),  # out of order on purpose
        {"name": "img", "op": "Placeholder"},
        convolution("c0", "_FusedConv2D", ["img", "w0", "b0"], stride=2),
        node("r0", "Relu", "c0"),
        *spelt_out_prelu("p0", "c0", "r0"),
        convolution("d1", "FusedDepthwiseConv2dNative", ["p0", "w1", "b1"], padding="VALID", relu=True),
        *spelt_out_prelu("p1", "d1", "d1"),
        node("flat", "Squeeze", "p1"),
        node("square", "Square", "flat"),
        node("sum", "Sum", "square", "axis"),
        node("least", "Maximum", "sum", "floor"),
        node("rsqrt", "Rsqrt", "least"),
    ]
    return write_model(folder, nodes, constants), constants
