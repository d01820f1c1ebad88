"""Checkpoint -> ONNX, checked against torch at once: ``python -m export.export_onnx WEIGHTS.safetensors OUT.onnx``."""

from __future__ import annotations

import argparse
import json
import logging
import warnings
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor, nn

from export.half_weights import pack
from export.runs import moved_into_place, run_command
from idm_rt.errors import ModelError
from idm_rt.geometry import CROP_SIZE
from idm_rt.network import DenoiserNet, load_denoiser

if TYPE_CHECKING:
    import onnx

OPSET = 20  # from 21 on OpenVINO 2026.4 and TensorRT-RTX 1.7 crash on parts of what the exporter writes
SMALLEST_PSNR_DB = {"f32": 80.0, "fp16": 50.0}  # ONNX Runtime against torch f32, peak to peak of -1..1


class HalfDenoiser(nn.Module):
    """The network in fp16, except for the time embedding: that costs 0.85 % of relative error in fp16."""

    def __init__(self, net: DenoiserNet) -> None:
        super().__init__()
        self.net = net.half()
        self.net.time.float()

    def forward(self, x_t: Tensor, y: Tensor, t: Tensor) -> Tensor:
        """x_t, y fp16, t f32 -> x_0 fp16."""
        return self.net(x_t, y, t)


def export_onnx(net: DenoiserNet, path: Path, precision: str = "f32") -> float:
    """Write ``net`` as ONNX with a free batch size, compare it with torch on two faces-like batches.

    Weights that fp16 holds exactly take 16 bits in the f32 file too.

    Args:
        net: f32, evaluation mode; not changed.
        precision: "f32" or "fp16" (inputs x_t, y and output x0 in that precision; t is always f32).

    Returns:
        The smallest PSNR against torch f32, dB.

    Raises:
        ModelError: the exported network does not do what the original does.
    """
    kind = torch.float16 if precision == "fp16" else torch.float32
    copy = DenoiserNet(net.config)
    copy.load_state_dict(net.state_dict())
    module = (HalfDenoiser(copy) if precision == "fp16" else copy).eval()
    # separate tensors: equal ones would be merged into one graph input
    example = (_noise(2, 1).to(kind), _noise(2, 2).to(kind), torch.tensor([1.0, 0.5]))
    with moved_into_place(path) as temporary, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        logging.getLogger("torch.onnx").setLevel(logging.ERROR)
        program = torch.onnx.export(
            module,
            example,
            dynamo=True,
            opset_version=OPSET,
            input_names=["x_t", "y", "t"],
            output_names=["x0"],
            dynamic_shapes=({0: "n"}, {0: "n"}, {0: "n"}),
            verbose=False,
        )
        assert program is not None
        model = program.model_proto
        forget_origin(model)
        if precision == "f32":
            pack(model)
        temporary.write_bytes(model.SerializeToString())
        return _check(net, temporary, precision)


def forget_origin(model: onnx.ModelProto) -> None:
    """Take out, in place, what the exporter notes about its own machine: stack traces with paths, module names."""
    graph = model.graph
    for part in (model, graph, *graph.node, *graph.input, *graph.output, *graph.value_info, *graph.initializer):
        del part.metadata_props[:]


def _noise(count: int, seed: int) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    small = torch.rand(count, 3, CROP_SIZE // 16, CROP_SIZE // 16, generator=generator) * 2 - 1
    return nn.functional.interpolate(small, CROP_SIZE, mode="bicubic").clamp(-1, 1)


def _check(net: DenoiserNet, path: Path, precision: str) -> float:
    import onnxruntime

    session = onnxruntime.InferenceSession(path.read_bytes(), providers=["CPUExecutionProvider"])
    names = [i.name for i in session.get_inputs()]
    if names != ["x_t", "y", "t"]:
        raise ModelError(f"the exported graph has inputs {names}, expected x_t, y, t")
    kind = np.float16 if precision == "fp16" else np.float32
    worst = np.inf
    for count in (1, 3):
        x_t, y = _noise(count, 3), _noise(count, 4)
        t = torch.linspace(1.0, 0.25, count)
        with torch.no_grad():
            wanted = net(x_t, y, t).numpy()
        feeds = {"x_t": x_t.numpy().astype(kind), "y": y.numpy().astype(kind), "t": t.numpy()}
        found = session.run(None, feeds)[0].astype(np.float32)
        worst = min(worst, float(-10 * np.log10(np.mean((found - wanted) ** 2) / 4.0 + 1e-12)))
    if worst < SMALLEST_PSNR_DB[precision]:
        raise ModelError(
            f"ONNX {precision} is {worst:.1f} dB from torch, at least {SMALLEST_PSNR_DB[precision]} wanted"
        )
    return worst


def main(argv: list[str] | None = None) -> int:
    """Command line; returns the exit status."""
    parser = argparse.ArgumentParser(prog="python -m export.export_onnx", description=__doc__)
    parser.add_argument("weights", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("--network", type=json.loads, default={}, help="DenoiserConfig as JSON (default: the default)")
    parser.add_argument("--precision", choices=("f32", "fp16"), default="f32")
    parser.add_argument("--dry-run", action="store_true", help="read the weights, say what would be written and stop")
    args = parser.parse_args(argv)

    def action() -> None:
        net = load_denoiser(args.weights, args.network)
        if args.dry_run:
            plan = {"out": str(args.out), "precision": args.precision, "opset": OPSET}
            print(json.dumps({**plan, "network": net.config.to_dict()}, indent=2))
            return
        decibels = export_onnx(net, args.out, args.precision)
        logging.getLogger(__name__).info("%s: %.1f dB against torch", args.out, decibels)

    return run_command(action)


if __name__ == "__main__":
    raise SystemExit(main())
