"""A stand-in for the run-time half of TensorRT's Python API that computes the plan's network with ONNX Runtime.

Nothing here has touched a GPU. It is as strict as the documentation is: every address and shape must be set, shapes
must lie in the context's profile, user-managed memory must be given before the first run, and the first run after a
change of shapes may not be captured, because work that was put off is done in it.

A plan is a header with library version and GPU, then the ONNX step graph: "built" by ``fake_plan``.
"""

from __future__ import annotations

import ctypes
import enum
import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
from fake_cuda import FakeCuda

from idm_rt.backends.trt.library import FLAVOURS, Library
from idm_rt.backends.trt.network import PROFILES
from idm_rt.backends.trt.plan_key import PlanKey
from idm_rt.backends.trt.step_graph import step_graph

MAGIC = b"FAKEPLAN"
INPUTS = {"crops": np.uint8, "state": np.float16, "eps": np.float16, "mix": np.float16, "t": np.float32}
OUTPUTS = {"x0": np.float16, "correction": np.float16, "level": np.float32}


def fake_plan(key: PlanKey, model: Path) -> bytes:
    """What a builder would make of a model for a key."""
    graph = step_graph(model, key.size).SerializeToString()
    header = json.dumps({"version": key.version, "gpu": key.gpu, "bytes": len(graph)}).encode()
    return MAGIC + len(header).to_bytes(4, "little") + header + graph


class Severity(enum.Enum):
    INTERNAL_ERROR, ERROR, WARNING, INFO, VERBOSE = range(5)


class ILogger:
    def __init__(self) -> None:
        self.made = True


class Strategy(enum.Enum):
    STATIC, ON_PROFILE_CHANGE, USER_MANAGED = range(3)


class Diagnostics(enum.IntFlag):
    VERSION_MISMATCH, UNSUPPORTED_CC, MALFORMED_ENGINE = 1, 2, 32


def fake_library(engine: str, cuda: FakeCuda, version: str = "11.0.0", gpu: str = "Fake GPU") -> Library:
    """A library that accepts plans of its own version and GPU."""
    machine = SimpleNamespace(cuda=cuda, version=version, gpu=gpu, contexts=0, executions=0, fail=None, portable=False)
    machine.portable = FLAVOURS[engine].portable
    api = SimpleNamespace(
        Logger=SimpleNamespace(Severity=Severity),
        ILogger=ILogger,
        Runtime=lambda logger: FakeRuntime(machine, logger),
        ExecutionContextAllocationStrategy=Strategy,
        EngineInvalidityDiagnostics=Diagnostics,
        BuilderFlag=SimpleNamespace(),
        machine=machine,
    )
    return Library(FLAVOURS[engine], api, version)


class FakeRuntime:
    def __init__(self, machine: Any, logger: Any) -> None:
        assert logger.made, "a logger whose base was not initialised"
        self._machine, self._logger = machine, logger

    def deserialize_cuda_engine(self, plan: bytes) -> Any:
        if self.get_engine_validity(plan)[1]:
            self._logger.log(Severity.ERROR, "the plan cannot be read")
            return None
        graph = _split(plan)[1]
        return FakeEngine(self._machine, self._logger, graph)

    def get_engine_validity(self, plan: bytes) -> tuple[str, int]:
        parts = _split(plan)
        if parts is None:
            return "INVALID", int(Diagnostics.MALFORMED_ENGINE)
        if parts[0]["version"] != self._machine.version:
            return "INVALID", int(Diagnostics.VERSION_MISMATCH)
        if parts[0]["gpu"] not in ("any", self._machine.gpu):
            return "INVALID", int(Diagnostics.UNSUPPORTED_CC)
        return "VALID", 0


def _split(plan: bytes) -> tuple[dict[str, Any], bytes] | None:
    if plan[:8] != MAGIC:
        return None
    end = 12 + int.from_bytes(plan[8:12], "little")
    header = json.loads(plan[12:end])
    return (header, plan[end:]) if len(plan) - end == header["bytes"] else None


class FakeEngine:
    device_memory_size_v2 = 4096

    def __init__(self, machine: Any, logger: Any, graph: bytes) -> None:
        import onnxruntime

        self.machine, self.logger = machine, logger
        self.session = onnxruntime.InferenceSession(graph, providers=["CPUExecutionProvider"])

    def create_runtime_config(self) -> Any:
        assert self.machine.portable, "not in TensorRT"
        config = SimpleNamespace(strategy=None, cache=None)
        config.set_execution_context_allocation_strategy = lambda s: setattr(config, "strategy", s)
        config.create_runtime_cache = lambda: FakeCache(self.machine.gpu)
        config.set_runtime_cache = lambda cache: setattr(config, "cache", cache)
        return config

    def create_execution_context(self, how: Any) -> FakeContext:
        if self.machine.portable:
            assert how.strategy is Strategy.USER_MANAGED
            how.cache.kernels += 1
        else:
            assert how is Strategy.USER_MANAGED
        self.machine.contexts += 1
        return FakeContext(self)


class FakeCache:
    """The run-time cache of TensorRT-RTX."""

    def __init__(self, gpu: str) -> None:
        self.gpu, self.kernels, self.loaded = gpu, 0, 0

    def deserialize(self, data: bytes) -> bool:
        gpu, _, kernels = data.partition(b":")
        if gpu.decode() != self.gpu:
            return False
        self.loaded = self.kernels = int(kernels)
        return True

    def serialize(self) -> bytes:
        return f"{self.gpu}:{self.kernels}".encode()


class FakeContext:
    def __init__(self, engine: FakeEngine) -> None:
        self._engine, self._cuda = engine, engine.machine.cuda
        self._shapes: dict[str, tuple[int, ...]] = {}
        self._addresses: dict[str, int] = {}
        self._profile = 0
        self._memory: tuple[int, int] | None = None
        self._put_off = True

    def set_device_memory(self, address: int, size: int) -> None:
        assert size >= self._engine.device_memory_size_v2 and address % 16 == 0
        self._memory = address, size

    def set_optimization_profile_async(self, profile: int, stream: int) -> bool:
        self._profile, self._put_off = profile, True
        return stream in self._cuda.streams and profile < len(PROFILES)

    def set_input_shape(self, name: str, shape: tuple[int, ...]) -> bool:
        low, _, high = PROFILES[self._profile]
        if name not in INPUTS or (name in ("crops", "state", "t") and not low <= shape[0] <= high):
            self._engine.logger.log(Severity.ERROR, f"{name} {shape} is not in profile {self._profile}")
            return False
        self._put_off = self._put_off or self._shapes.get(name) != shape
        self._shapes[name] = tuple(shape)
        return True

    def set_tensor_address(self, name: str, address: int) -> bool:
        self._addresses[name] = address
        return name in INPUTS or name in OUTPUTS

    def execute_async_v3(self, stream: int) -> bool:
        machine = self._engine.machine
        if machine.fail:
            self._engine.logger.log(Severity.ERROR, machine.fail)
            return False
        assert set(self._shapes) == set(INPUTS), "a shape is missing"
        assert set(self._addresses) == {*INPUTS, *OUTPUTS}, "an address is missing"
        assert self._memory is not None, "no device memory was given"
        self._cuda.check(*self._memory, self._cuda.device)
        if self._put_off and self._cuda.capturing is not None:
            self._cuda.capture_spoilt = True
            return False
        self._put_off = False
        addresses, shapes = dict(self._addresses), dict(self._shapes)
        self._cuda.enqueue(stream, lambda: self._compute(addresses, shapes))
        return True

    def _compute(self, addresses: dict[str, int], shapes: dict[str, tuple[int, ...]]) -> None:
        self._engine.machine.executions += 1
        feeds = {name: self._view(addresses[name], shapes[name], kind).copy() for name, kind in INPUTS.items()}
        results = self._engine.session.run(list(OUTPUTS), feeds)
        for (name, kind), values in zip(OUTPUTS.items(), results, strict=True):
            self._view(addresses[name], values.shape, kind)[...] = values

    def _view(self, address: int, shape: tuple[int, ...], kind: Any) -> np.ndarray:
        count = int(np.prod(shape))
        size = count * np.dtype(kind).itemsize
        self._cuda.check(address, size, self._cuda.device)
        memory = (ctypes.c_ubyte * size).from_address(address)
        return np.frombuffer(memory, kind, count).reshape(shape)
