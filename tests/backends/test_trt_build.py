"""TensorRT plans built for real: by the tensorrt_rtx package, whose builder needs no GPU. Executed they are not."""

from __future__ import annotations

import dataclasses
import json
import multiprocessing
import os
import sys
import threading
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tiny_model import SIZE

from idm_rt.backends.nvidia import Gpu
from idm_rt.backends.trt import building
from idm_rt.backends.trt.backend import open_engine, why_not_ready
from idm_rt.backends.trt.building import ChildResult, ensure_plan
from idm_rt.backends.trt.library import FLAVOURS, check_version, load_library
from idm_rt.backends.trt.network import MAX_BATCH, PROFILES, build, count_precisions, profile_of
from idm_rt.backends.trt.plan_key import PlanKey, plan_key
from idm_rt.backends.trt.plan_store import PlanStore
from idm_rt.backends.trt.step_graph import step_graph
from idm_rt.config import DEFAULT_MODEL
from idm_rt.errors import EngineError, ModelError
from idm_rt.model_manifest import ModelManifest, load_manifest
from idm_rt.model_store import find_model


def has_rtx() -> bool:
    try:
        load_library("tensorrt-rtx")
    except EngineError:
        return False
    return True


needs_rtx = pytest.mark.skipif(not has_rtx(), reason="tensorrt_rtx does not load here: pip install 'idm-rt[rtx]'")
RTX = FLAVOURS["tensorrt-rtx"]


@pytest.fixture
def manifest(tiny_folder: Path) -> ModelManifest:
    return load_manifest(tiny_folder)


@pytest.fixture
def key(manifest: ModelManifest) -> PlanKey:
    return plan_key(RTX, load_library("tensorrt-rtx").version if has_rtx() else "1.7.1", manifest, None)


@pytest.fixture
def store(tmp_path: Path) -> PlanStore:
    return PlanStore(tmp_path / "built")


def fake_child(
    key: PlanKey, model: Path, timing_cache: Path, timeout_s: float, cancelled: threading.Event | None
) -> ChildResult:
    """A builder that takes no time."""
    return ChildResult(b"plan of " + key.model_sha256.encode(), b"timings", {"layers": {"HALF": 3}})


def never(*_: Any) -> ChildResult:
    raise AssertionError("the plan lies there, it must not be built")


# --- the real builder ---


@needs_rtx
@pytest.mark.slow
def test_the_shipped_model_becomes_a_plan_of_half_precision(tmp_path: Path) -> None:
    manifest = find_model(DEFAULT_MODEL)
    if not manifest.has("onnx_fp16"):
        pytest.skip("the default model has no onnx_fp16 file")
    graph = step_graph(manifest.verified_file("onnx_fp16"), manifest.crop_size)
    built = build(load_library("tensorrt-rtx"), graph.SerializeToString(), manifest.crop_size)
    assert len(built.plan) > 2 * 3_000_000  # the weights in fp16 are in it
    assert built.layers["HALF"] >= 100 and built.layers["FLOAT"] <= 40  # the time embedding and the level


@needs_rtx
@pytest.mark.slow
def test_built_in_a_process_of_its_own_then_found(store: PlanStore, key: PlanKey, manifest: ModelManifest) -> None:
    model = manifest.verified_file("onnx_fp16")
    plan = ensure_plan(store, key, model, timeout_s=300)
    assert len(plan) > 50_000 and "tensorrt_rtx" not in vars(building)
    record = json.loads(store.path(key).with_suffix(".json").read_text())
    assert record["key"] == key.to_dict() and record["build_s"] > 0 and record["layers"]["HALF"] > 20
    assert ensure_plan(store, key, model, run_child=never) == plan
    # The compiler numbers its inner names differently from run to run; what it builds is the same.
    again = ensure_plan(PlanStore(store.folder / "other"), key, model, timeout_s=300)
    assert abs(len(again) - len(plan)) < 0.01 * len(plan)


@needs_rtx
def test_without_a_gpu_the_library_names_it(store: PlanStore, key: PlanKey, manifest: ModelManifest) -> None:
    from idm_rt.backends.nvidia import cuda_device_count
    from idm_rt.backends.trt.library import make_logger
    from idm_rt.backends.trt.plan_runner import refusal

    if cuda_device_count():
        pytest.skip("there is a GPU here")
    library = load_library("tensorrt-rtx")
    errors: list[str] = []
    runtime = library.api.Runtime(make_logger(library, errors))
    garbage = b"x" * 1000
    assert runtime.deserialize_cuda_engine(garbage) is None
    assert "malformed engine" in refusal(library, runtime, garbage, errors) and errors
    with pytest.raises(EngineError, match="engine tensorrt-rtx could not be opened: no NVIDIA GPU was found here"):
        open_engine("tensorrt-rtx", manifest)


@needs_rtx
def test_a_layer_in_f32_is_refused(tiny_folder: Path) -> None:
    """The f32 model, disguised: only the check of the layers can tell."""
    import onnx
    from onnx import TensorProto, helper

    model = onnx.load(str(tiny_folder / "model.onnx"))
    for value in (*model.graph.input[:2], *model.graph.output):
        assert value.type.tensor_type.elem_type == TensorProto.FLOAT
        value.type.tensor_type.elem_type = TensorProto.FLOAT16
    casts = [helper.make_node("Cast", [n], [f"{n}_f32"], f"cast_{n}", to=TensorProto.FLOAT) for n in ("x_t", "y")]
    for node in model.graph.node:
        node.input[:] = [f"{n}_f32" if n in ("x_t", "y") else n for n in node.input]
        node.output[:] = ["x0_f32" if n == "x0" else n for n in node.output]
    back = helper.make_node("Cast", ["x0_f32"], ["x0"], "cast_x0", to=TensorProto.FLOAT16)
    nodes = [*casts, *model.graph.node, back]
    del model.graph.node[:]
    model.graph.node.extend(nodes)
    del model.graph.value_info[:]
    path = tiny_folder.parent / "disguised.onnx"
    onnx.save(model, str(path))
    graph = step_graph(path, SIZE).SerializeToString()
    with pytest.raises(EngineError, match=r"layer .* of the model is f32, expected fp16; export the model again"):
        build(load_library("tensorrt-rtx"), graph, SIZE)


@needs_rtx
def test_what_is_no_network_is_refused() -> None:
    with pytest.raises(EngineError, match="tensorrt-rtx cannot parse the model: .+; export it again"):
        build(load_library("tensorrt-rtx"), b"no protobuf", SIZE)


@needs_rtx
@pytest.mark.slow
def test_the_error_of_the_child_comes_through(store: PlanStore, key: PlanKey, tmp_path: Path) -> None:
    model = tmp_path / "bad.onnx"
    model.write_bytes(b"not a model")
    with pytest.raises(EngineError, match=r"plan for tensorrt-rtx could not be built: .*bad.onnx is not an ONNX model"):
        ensure_plan(store, key, model, timeout_s=120)
    assert not store.path(key).exists()


# --- the process around it ---


@pytest.mark.parametrize(
    ("code", "message"),
    [
        ("import os; print('Segmentation fault in myelin'); os.abort()", r"status -6: Segmentation fault in myelin"),
        ("raise SystemExit(3)", r"ended with status 3: it said nothing"),
    ],
)
def test_a_builder_that_crashes_is_an_error_of_one_line(
    code: str, message: str, store: PlanStore, key: PlanKey, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "crashing.py").write_text(code)
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.setattr(building, "_CHILD", "crashing")
    with pytest.raises(EngineError, match=message) as caught:
        ensure_plan(store, key, tmp_path / "model.onnx", timeout_s=60)
    assert "\n" not in str(caught.value) and store.plans() == []


@pytest.mark.parametrize("cancel", [True, False])
def test_a_builder_that_hangs_is_ended(
    cancel: bool, store: PlanStore, key: PlanKey, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    place = tmp_path / "process.txt"
    (tmp_path / "hanging.py").write_text(
        f"import os, time; open({str(place)!r}, 'w').write(str(os.getpid())); time.sleep(600)"
    )
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.setattr(building, "_CHILD", "hanging")
    cancelled = threading.Event()
    if cancel:
        threading.Timer(3.0, cancelled.set).start()
    expected = "the build was cancelled" if cancel else "the build took longer than 3 s"
    with pytest.raises(EngineError, match=expected):
        ensure_plan(store, key, tmp_path, timeout_s=60 if cancel else 3, cancelled=cancelled)
    if place.exists():
        with pytest.raises(ProcessLookupError):
            os.kill(int(place.read_text()), 0)


# --- the store ---


def test_hit_and_miss(store: PlanStore, key: PlanKey, tmp_path: Path) -> None:
    assert store.fault(key) == "not built yet"
    plan = ensure_plan(store, key, tmp_path, run_child=fake_child)
    assert store.fault(key) is None and ensure_plan(store, key, tmp_path, run_child=never) == plan
    assert store.timing_cache(key.engine).read_bytes() == b"timings"
    assert not list(store.folder.rglob(".*"))  # no temporary file stays


CHANGES = {
    "version": "9.9.9",
    "model_sha256": "0" * 64,
    "gpu": "Another GPU",
    "compute_capability": "12.0",
    "driver": "600.0",
    "profiles": ((1, 1, 1),),
    "os": "Windows",
    "arch": "arm64",
    "schema": 99,
    "engine": "tensorrt",
    "precision": "bf16",
    "size": 512,
    "model": "other",
}


def test_every_field_of_the_key_counts(store: PlanStore, key: PlanKey, tmp_path: Path) -> None:
    assert set(CHANGES) == {field.name for field in dataclasses.fields(PlanKey)}
    ensure_plan(store, key, tmp_path, run_child=fake_child)
    for name, value in CHANGES.items():
        other = dataclasses.replace(key, **{name: value})
        assert store.fault(other) == "not built yet", name


def test_a_plan_of_tensorrt_is_tied_to_the_gpu_and_driver_one_of_rtx_is_not(manifest: ModelManifest, gpu: Gpu) -> None:
    others = [dataclasses.replace(gpu, **change) for change in ({"name": "B"}, {"driver": "1"})]
    tied = {plan_key(FLAVOURS["tensorrt"], "11.0", manifest, g).digest for g in (gpu, *others)}
    portable = {plan_key(RTX, "1.7", manifest, g).digest for g in (gpu, None, *others)}
    assert (len(tied), len(portable)) == (3, 1)
    with pytest.raises(EngineError, match="no NVIDIA GPU was found here; a plan of tensorrt is built on the GPU"):
        plan_key(FLAVOURS["tensorrt"], "11.0", manifest, None)


def truncate(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-1])


def flip(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[3] ^= 1
    path.write_bytes(data)


def forget(path: Path) -> None:
    path.with_suffix(".json").unlink()


def garble(path: Path) -> None:
    path.with_suffix(".json").write_text('{"key": ')


def lie(path: Path) -> None:
    sidecar = path.with_suffix(".json")
    record = json.loads(sidecar.read_text())
    record["key"]["version"] = "0.1"
    sidecar.write_text(json.dumps(record))


@pytest.mark.parametrize(
    ("damage", "reason"),
    [
        (truncate, r"has \d+ bytes, expected \d+"),
        (flip, "has sha256"),
        (forget, r"\.json is missing"),
        (garble, "cannot be read"),
        (lie, "is the plan of something else"),
    ],
)
def test_a_damaged_or_foreign_plan_is_built_again(
    damage: Any, reason: str, store: PlanStore, key: PlanKey, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    plan = ensure_plan(store, key, tmp_path, run_child=fake_child)
    damage(store.path(key))
    assert ensure_plan(store, key, tmp_path, run_child=fake_child) == plan
    import re

    assert re.search(f"the plan for tensorrt-rtx is built again: .*{reason}", caplog.text)
    assert ensure_plan(store, key, tmp_path, run_child=never) == plan


def build_beside_others(folder: str, values: dict[str, Any], queue: Any) -> None:
    """Run in a process of its own: counts how often the builder ran here."""
    builds = []

    def slow_child(*arguments: Any) -> ChildResult:
        builds.append(1)
        threading.Event().wait(0.5)
        return fake_child(*arguments)

    key = PlanKey(**{**values, "profiles": tuple(map(tuple, values["profiles"]))})
    plan = ensure_plan(PlanStore(Path(folder)), key, Path(folder), timeout_s=60, run_child=slow_child)
    queue.put((len(builds), plan))


@pytest.mark.slow
def test_processes_at_a_time_build_it_once(store: PlanStore, key: PlanKey, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(Path(__file__).parent))
    context = multiprocessing.get_context("spawn")
    queue = context.Queue()
    arguments = (str(store.folder), key.to_dict(), queue)
    processes = [context.Process(target=build_beside_others, args=arguments) for _ in range(3)]
    for process in processes:
        process.start()
    results = [queue.get(timeout=120) for _ in processes]
    for process in processes:
        process.join(30)
    assert sum(count for count, _ in results) == 1 and len({plan for _, plan in results}) == 1


def test_a_builder_that_never_ends_elsewhere_is_an_error(store: PlanStore, key: PlanKey, tmp_path: Path) -> None:
    with store.locked(key, 1), pytest.raises(EngineError, match="another process has been building .* for 0 s"):
        ensure_plan(store, key, tmp_path, timeout_s=0.2, run_child=fake_child)


def test_a_folder_that_cannot_be_written(key: PlanKey, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(EngineError, match="cannot be written .*; set IDM_RT_BUILT to a folder that can"):
        ensure_plan(PlanStore(tmp_path / "file"), key, tmp_path, run_child=fake_child)


def test_list_and_clean(store: PlanStore, key: PlanKey, tmp_path: Path) -> None:
    other = dataclasses.replace(key, model="other", engine="tensorrt")
    for each in (key, other):
        ensure_plan(store, each, tmp_path, run_child=fake_child)
    truncate(store.path(other))
    found = {plan.path: plan for plan in store.plans()}
    assert found[store.path(key)].fault is None and found[store.path(key)].key == key.to_dict()
    assert "bytes, expected" in str(found[store.path(other)].fault)
    assert store.path(other) in store.clean(model="other") and [p.path for p in store.plans()] == [store.path(key)]
    store.clean("tensorrt")
    assert [p.path for p in store.plans()] == [store.path(key)]
    store.clean()
    assert not [path for path in store.folder.rglob("*") if path.is_file()]


def test_where_plans_lie(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    from idm_rt.backends.trt.plan_store import built_folder

    for name in ("IDM_RT_BUILT", "IDM_RT_CACHE"):
        monkeypatch.delenv(name, raising=False)
    assert built_folder().parts[-2:] == ("engines", "built")
    monkeypatch.setenv("IDM_RT_CACHE", str(tmp_path))
    assert built_folder() == tmp_path / "built"
    monkeypatch.setenv("IDM_RT_BUILT", str(tmp_path / "x"))
    assert built_folder() == tmp_path / "x"


# --- what goes into it ---


def test_the_step_graph_checks_what_it_wraps(tiny_folder: Path, tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=r"has inputs and outputs .*, expected .*; export the model again"):
        step_graph(tiny_folder / "model.onnx", SIZE)  # f32
    with pytest.raises(ModelError, match="has inputs and outputs"):
        step_graph(tiny_folder / "model_fp16.onnx", 2 * SIZE)
    (tmp_path / "bad.onnx").write_bytes(b"\x08\x07")
    with pytest.raises(ModelError, match=r"bad.onnx is not an ONNX model \(.*\); export it again"):
        step_graph(tmp_path / "bad.onnx", SIZE)


def test_the_level_of_a_face_tells_what_the_clipped_correction_hides(tiny_folder: Path) -> None:
    import onnxruntime

    graph = step_graph(tiny_folder / "model_fp16.onnx", SIZE).SerializeToString()
    session = onnxruntime.InferenceSession(graph, providers=["CPUExecutionProvider"])
    state = np.zeros((2, 3, SIZE, SIZE), np.float16)
    state[1, 0, 0, 0] = np.inf
    feeds = {
        "crops": np.full((2, SIZE, SIZE, 3), 128, np.uint8),
        "state": state,
        "eps": np.zeros((1, 3, SIZE, SIZE), np.float16),
        "mix": np.array([1, 0, 0], np.float16).reshape(3, 1, 1, 1),
        "t": np.ones(2, np.float32),
    }
    level = session.run(["level"], feeds)[0]
    assert np.isfinite(level[0]) and not np.isfinite(level[1])


def test_each_batch_size_has_one_profile() -> None:
    assert [profile_of(n) for n in (1, 2, 8, MAX_BATCH)] == [0, 1, 1, 1]
    assert all(low <= best <= high for low, best, high in PROFILES)
    with pytest.raises(ValueError, match="batch is 17, expected 1 to 16"):
        profile_of(MAX_BATCH + 1)


@pytest.mark.parametrize("version", ["9.3.0", "10.11.9", "12.0.0", "unknown"])
def test_versions_that_do_not_fit(version: str) -> None:
    with pytest.raises(EngineError, match=rf"tensorrt {version} is installed, expected 10.12 or newer, below 12; pip"):
        check_version(FLAVOURS["tensorrt"], version)


def test_versions_that_fit() -> None:
    for version in ("10.12.0.36", "10.13.3", "11.4.0.106"):
        check_version(FLAVOURS["tensorrt"], version)


def test_a_missing_package_names_what_to_type(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "tensorrt", None)
    with pytest.raises(EngineError, match=r"^the package tensorrt is not installed; pip install 'idm-rt\[tensorrt\]'"):
        load_library("tensorrt")


def test_a_model_without_an_fp16_file(manifest: ModelManifest, gpu: Gpu) -> None:
    files = {kind: record for kind, record in manifest.files.items() if kind != "onnx_fp16"}
    with pytest.raises(EngineError, match="'tiny' comes without the onnx_fp16 file that tensorrt needs"):
        plan_key(FLAVOURS["tensorrt"], "11.0", dataclasses.replace(manifest, files=files), gpu)


@needs_rtx
def test_readiness_is_known_before_anything_is_opened(
    manifest: ModelManifest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, key: PlanKey
) -> None:
    monkeypatch.setenv("IDM_RT_BUILT", str(tmp_path))
    assert why_not_ready("tensorrt-rtx", manifest) == "not built yet"
    ensure_plan(PlanStore(), key, tmp_path, run_child=fake_child)
    assert why_not_ready("tensorrt-rtx", manifest) is None


def test_the_census_counts_only_what_is_there() -> None:
    class Empty:
        num_layers = 0

    assert count_precisions(Empty()) == {}
