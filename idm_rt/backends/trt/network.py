"""What the builder is given: the parsed step graph, proven to be fp16, and the batch sizes to be fast at."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from idm_rt.backends.trt.library import Library, make_logger
from idm_rt.errors import EngineError

MAX_BATCH = 16
# (smallest, best, largest) batch of each optimisation profile: one face, the usual case, gets kernels of its own.
PROFILES = ((1, 1, 1), (2, 8, MAX_BATCH))
FLOAT_PREFIX = "idm_level"  # nodes of the step graph that are f32 on purpose
_PICTURE_RANK = 4


@dataclass(frozen=True, slots=True)
class Built:
    """A plan and what is known about it."""

    plan: bytes
    timing_cache: bytes  # of the builder: makes the next build faster; empty when the library gives none
    layers: dict[str, int]  # number of layers of the network by type of their output


def profile_of(batch: int) -> int:
    """Index of the profile for a batch size.

    Raises:
        ValueError: no profile has it.
    """
    for index, (low, _, high) in enumerate(PROFILES):
        if low <= batch <= high:
            return index
    raise ValueError(f"batch is {batch}, expected 1 to {MAX_BATCH}")


def build(library: Library, model: bytes, size: int, timing_cache: bytes = b"") -> Built:
    """Compile a step graph. Takes seconds to minutes; a fault of the library may end the process.

    Args:
        model: serialised ONNX, see ``step_graph``.
        size: S, side of the crops in px.
        timing_cache: of an earlier build; one that does not fit is ignored.

    Raises:
        EngineError: the library refuses the model; or a layer would not run in fp16.
    """
    errors: list[str] = []
    api = library.api
    builder = api.Builder(make_logger(library, errors))
    # The only kind that all versions share: precision is the types of the ONNX tensors, nothing is chosen for us.
    network = builder.create_network(1 << int(api.NetworkDefinitionCreationFlag.STRONGLY_TYPED))
    parser = api.OnnxParser(network, builder.logger)
    if not parser.parse(model):
        reasons = [parser.get_error(i).desc() for i in range(parser.num_errors)]
        raise EngineError(f"{library.engine} cannot parse the model: {_first([*reasons, *errors])}; export it again")
    layers = count_precisions(network)
    config = builder.create_builder_config()
    cache = configure(library, builder, config, size, timing_cache)
    plan = builder.build_serialized_network(network, config)
    if plan is None:
        raise EngineError(f"{library.engine} {library.version} cannot build a plan: {_first(errors)}")
    return Built(bytes(plan), bytes(cache.serialize()) if cache is not None else b"", layers)


def configure(library: Library, builder: Any, config: Any, size: int, timing_cache: bytes) -> Any:
    """Set flags and profiles; returns the timing cache in use, or None."""
    api = library.api
    if library.has_builder_flag("REQUIRE_USER_ALLOCATION"):  # TensorRT-RTX: needed to capture a CUDA graph
        config.set_flag(api.BuilderFlag.REQUIRE_USER_ALLOCATION)
    for low, best, high in PROFILES:
        profile = builder.create_optimization_profile()
        for name, shape in (("crops", (size, size, 3)), ("state", (3, size, size)), ("t", ())):
            profile.set_shape(name, (low, *shape), (best, *shape), (high, *shape))
        config.add_optimization_profile(profile)
    if library.flavour.portable:  # nothing is timed: it compiles at run time, and has a cache for that
        return None
    cache = config.create_timing_cache(timing_cache)
    if cache is None and timing_cache:  # of another version or GPU
        cache = config.create_timing_cache(b"")
    if cache is None or not config.set_timing_cache(cache, False):
        return None
    return cache


def count_precisions(network: Any) -> dict[str, int]:
    """Number of layers by type of output.

    Raises:
        EngineError: a picture or feature map is f32 where it should be fp16, which would silently halve the speed.
    """
    counts: Counter[str] = Counter()
    for layer, tensor in _outputs(network):
        kind = tensor.dtype.name
        counts[kind] += 1
        if kind == "FLOAT" and len(tensor.shape) == _PICTURE_RANK and not layer.name.startswith(FLOAT_PREFIX):
            raise EngineError(f"layer {layer.name} of the model is f32, expected fp16; export the model again")
    return dict(counts)


def _outputs(network: Any) -> Iterator[tuple[Any, Any]]:
    for index in range(network.num_layers):
        layer = network.get_layer(index)
        for output in range(layer.num_outputs):
            tensor = layer.get_output(output)
            if tensor is not None:
                yield layer, tensor


def _first(reasons: list[str]) -> str:
    return " ".join(reasons[0].split()) if reasons else "no reason given"
