"""A restorer model that is small enough to export within the tests."""

from __future__ import annotations

import json
import warnings
from pathlib import Path
from typing import Any

from idm_rt.diffusion import KAPPA
from idm_rt.geometry import ALIGN_TEMPLATE
from idm_rt.model_files import sha256_of

SIZE = 64  # side of its crops, px


def write_tiny_model(folder: Path) -> Path:
    """Export a ``DenoiserNet`` with random weights (seeded) into ``folder`` as a shipped model would be."""
    import torch
    from safetensors.torch import save_file

    from idm_rt.network import DenoiserConfig, DenoiserNet

    folder.mkdir(parents=True)
    torch.manual_seed(7)
    net = DenoiserNet(DenoiserConfig(channels=(16, 32), blocks=(1, 1), fold=4, embedding=16)).eval()
    with torch.no_grad():  # the layers that start at zero would make it the identity, which proves nothing
        for name, parameter in net.named_parameters():
            scale = 0.5 if "time" in name or "shift" in name else 0.05  # so that a wrong time shows
            parameter.copy_(torch.randn_like(parameter) * scale)
    save_file(net.state_dict(), folder / "model.safetensors")
    export_onnx(net, folder / "model.onnx")
    net.half().time.float()  # as export.export_onnx.HalfDenoiser
    export_onnx(net, folder / "model_fp16.onnx", torch.float16)
    write_manifest(folder, network=net.config.to_dict())
    return folder


def export_onnx(net: Any, path: Path, dtype: Any = None) -> None:
    """Write the ONNX denoiser with a dynamic batch; its pictures have this torch type (None = f32)."""
    import torch

    example = tuple(torch.randn(2, 3, SIZE, SIZE, dtype=dtype) for _ in range(2))  # two tensors: one would be aliased
    batch = torch.export.Dim("N", min=1, max=64)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.onnx.export(
            net,
            (*example, torch.tensor([1.0, 0.5])),
            path,
            dynamo=True,
            opset_version=20,
            input_names=["x_t", "y", "t"],
            output_names=["x0"],
            dynamic_shapes=({0: batch}, {0: batch}, {0: batch}),
            external_data=False,
            verbose=False,
        )


def write_manifest(folder: Path, **changes: Any) -> None:
    """Write model.json for the files in ``folder``; ``changes`` replace fields."""
    files = {"onnx": "model.onnx", "onnx_fp16": "model_fp16.onnx", "weights": "model.safetensors"}
    values = {
        "schema": 1,
        "name": folder.name,
        "version": "1.0.0",
        "licence": "Apache-2.0",
        "crop_size": SIZE,
        "align_template": ALIGN_TEMPLATE.tolist(),
        "steps": [1, 2, 4],
        "kappa": KAPPA,
        "network": {},
        "files": {
            kind: {"path": name, "sha256": sha256_of(folder / name), "bytes": (folder / name).stat().st_size}
            for kind, name in files.items()
            if (folder / name).exists()
        },
        "tolerance": {"f32_db": 60, "bf16_db": 45, "fp16_db": 50},
        "training": {},
    }
    (folder / "model.json").write_text(json.dumps({**values, **changes}), encoding="utf-8")
