"""Half the bytes, the same numbers."""

from __future__ import annotations

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from onnx import numpy_helper

from export.export_onnx import export_onnx
from export.half_weights import pack, rounded_to_half, unpack
from idm_rt.network import DenoiserConfig, DenoiserNet


@pytest.fixture(scope="module")
def net():
    torch.manual_seed(3)
    made = DenoiserNet(DenoiserConfig(channels=(16, 16), blocks=(1, 1)))
    torch.nn.init.normal_(made.head.weight, std=0.02)
    return made.eval()


@pytest.fixture(scope="module")
def rounded(net):
    copy = DenoiserNet(net.config)
    copy.load_state_dict(rounded_to_half(net.state_dict()))
    return copy.eval()


def test_rounding_is_slight_and_spares_the_time_embedding(net, rounded):
    for name, value in net.state_dict().items():
        error = (rounded.state_dict()[name] - value).abs()
        assert (error <= (0 if name.startswith("time.") else 2**-11) * value.abs() + 2**-25).all()


def test_the_f32_file_of_rounded_weights_is_half_as_large_and_exact(net, rounded, tmp_path):
    export_onnx(net, tmp_path / "full.onnx")
    export_onnx(rounded, tmp_path / "half.onnx")
    weights = sum(p.numel() for name, p in net.named_parameters() if not name.startswith("time."))
    saved = (tmp_path / "full.onnx").stat().st_size - (tmp_path / "half.onnx").stat().st_size
    assert 1.5 * weights < saved < 2 * weights  # biases and shifts of a few numbers stay


def test_the_file_does_not_tell_where_it_was_made(net, tmp_path):
    export_onnx(net, tmp_path / "full.onnx")
    data = (tmp_path / "full.onnx").read_bytes()
    assert b"stack_trace" not in data and b"site-packages" not in data


def test_unpacking_gives_the_same_graph_back(rounded, tmp_path):
    export_onnx(rounded, tmp_path / "half.onnx")
    packed = onnx.load(str(tmp_path / "half.onnx"))
    plain = onnx.load(str(tmp_path / "half.onnx"))
    unpack(plain)
    onnx.checker.check_model(plain)
    assert not any(c.data_type == onnx.TensorProto.FLOAT16 for c in plain.graph.initializer)
    assert [n.op_type for n in plain.graph.node] == [n.op_type for n in packed.graph.node if n.op_type != "Cast"]
    rng = np.random.default_rng(1)
    feeds = {
        **{name: rng.uniform(-1, 1, (1, 3, 256, 256)).astype(np.float32) for name in ("x_t", "y")},
        "t": np.ones(1, np.float32),
    }
    run = [onnxruntime.InferenceSession(m.SerializeToString()).run(None, feeds)[0] for m in (packed, plain)]
    np.testing.assert_array_equal(*run)
    pack(plain)
    assert plain.SerializeToString() == packed.SerializeToString()


def test_numbers_that_fp16_does_not_hold_stay(rounded, tmp_path):
    export_onnx(rounded, tmp_path / "half.onnx")
    model = onnx.load(str(tmp_path / "half.onnx"))
    unpack(model)
    odd = next(c for c in model.graph.initializer if numpy_helper.to_array(c).size > 1_000)
    values = numpy_helper.to_array(odd).copy()
    values.flat[0] = 1e6  # infinite in fp16
    odd.CopyFrom(numpy_helper.from_array(values, odd.name))
    pack(model)
    kept = next(c for c in model.graph.initializer if c.name == odd.name)
    np.testing.assert_array_equal(numpy_helper.to_array(kept), values)
