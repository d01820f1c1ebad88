"""A large matrix product as OpenVINO computes it on this CPU: what the engine could reach in its arithmetic."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from idm_rt.backends import openvino_backend as backend

_LEVELS = 256  # of int8


def matrix_product(side: int, precision: str) -> Callable[[], object]:
    """The product of two (side, side) matrices, ready to run on every CPU this process may use.

    Args:
        precision: "f32", "bf16" or "int8"; in int8 the left matrix is quantised on the way, as a network's are.

    Raises:
        EngineError: another precision, or the CPU has no bf16.
    """
    ov = backend.ov  # not imported here: see there what has to be done before
    op = ov.opset13
    generator = np.random.default_rng(0)
    values = generator.uniform(-1, 1, (side, side)).astype(np.float32)
    integers = generator.integers(-127, 128, (side, side)).astype(np.int8)
    left = given = op.parameter([side, side], np.float32, name="left")
    if precision == "int8":
        low, high = op.constant(np.float32(-1)), op.constant(np.float32(1))
        given = op.fake_quantize(left, low, high, low, high, _LEVELS)
        right = op.multiply(op.convert(op.constant(integers), "f32"), op.constant(np.float32(1 / 127)))
    else:
        right = op.constant(integers.astype(np.float32) / np.float32(127))
    graph = ov.Model([op.result(op.matmul(given, right, False, False))], [left], "product")
    request = backend.compile_graph(backend.the_core(), graph, None, precision)
    return lambda: request.infer([values], share_inputs=True, share_outputs=True)
