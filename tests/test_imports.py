"""Who may import whom, what stays lazy, and how fast the help answers."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
PACKAGE = ROOT / "idm_rt"

# From the ground up: a module may import modules of lower layers, and of its own group. The groups of one layer are
# siblings and do not know each other. A name stands for the module or for everything in the package of that name.
LAYERS: list[list[set[str]]] = [
    [{"types", "config", "errors", "timing", "mailbox", "landmarks", "cpu_info"}],
    [
        {"diffusion"},
        {"geometry"},
        {"network"},
        {"machine"},
        {"virtual_devices"},
        {"model_files", "model_manifest", "model_store", "model_download"},
    ],
    [{"backends"}],
    [{"tracking"}, {"restorer"}, {"blending"}, {"compositing"}, {"peers"}],
    [{"pipeline", "enhancer"}],
    [{"worker", "engine_thread", "delivery", "governor", "live_records", "frame_interval"}, {"media"}],
    [
        {"before_after", "sample_clip", "enhance_files", "report", "bench", "bench_frames", "doctor"}
        | {"golden_crops", "engine_check", "engine_bench", "peer_bench"},
    ]
    + [{"webrtc"}, {"virtual_camera"}],
    [{"relay"}],
    [{"cli", "__main__"}],
]
# The one file (or folder) that may import each heavy third party.
DOORS = {
    "mediapipe": ["tracking/landmarker.py"],
    "openvino": ["backends/openvino_backend.py", "backends/openvino_sampler.py"],
    "onnxruntime": ["backends/onnxruntime_backend.py"],
    "tensorrt": [],  # both by name, in backends/trt/library.py
    "tensorrt_rtx": [],
    "cuda": [],  # by name, in backends/trt/cuda_api.py
    "onnx": ["backends/trt/step_graph.py"],
    "filelock": ["backends/trt/plan_store.py"],
    "torch": ["network.py", "backends/", "peers/networks.py"],
    "ncnn": ["peers/realesrgan.py"],
    "spandrel": [],  # both by name, in peers/networks.py
    "spandrel_extra_arches": [],
    "safetensors": ["network.py", "backends/"],
    "av": ["media/", "webrtc/", "doctor.py"],
    "PIL": ["media/", "before_after.py"],
    "aiortc": ["webrtc/", "relay/"],
    "aioice": ["webrtc/", "relay/"],
    "prometheus_client": ["relay/"],
    "aiohttp": ["webrtc/", "relay/", "virtual_camera/control_page.py"],
    "pyvirtualcam": ["virtual_camera/device_sink.py"],
    "tqdm": ["cli/output.py"],
    "platformdirs": ["model_store.py"],
}
HEAVY = (*DOORS, "cv2", "numpy")


def imports(path: Path) -> Iterator[str]:
    """Full names of the modules a file imports anywhere, those for type checking alone excepted."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    typing_only = {
        id(node)
        for branch in ast.walk(tree)
        if isinstance(branch, ast.If) and "TYPE_CHECKING" in ast.unparse(branch.test)
        for statement in branch.body
        for node in ast.walk(statement)
    }
    for node in ast.walk(tree):
        if id(node) in typing_only:
            continue
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: imports are absolute here"
            if node.module == "idm_rt":
                yield from (f"idm_rt.{alias.name}" for alias in node.names)
            elif node.module:
                yield node.module


def files_of(folder: str) -> list[Path]:
    return sorted((ROOT / folder).rglob("*.py"))


def place_of(module: str) -> tuple[int, int]:
    """(layer, group) of a module's first name inside idm_rt."""
    for layer, groups in enumerate(LAYERS):
        for group, names in enumerate(groups):
            if module in names:
                return layer, group
    raise AssertionError(f"idm_rt.{module} has no layer yet: add it to LAYERS")


@pytest.mark.parametrize("path", files_of("idm_rt"), ids=lambda path: str(path.relative_to(PACKAGE)))
def test_imports_go_down(path: Path) -> None:
    own = path.relative_to(PACKAGE).with_suffix("").parts[0]
    if own == "__init__":
        return  # the public names, loaded lazily: see test_importing_the_package_is_light
    layer, group = place_of(own)
    for name in imports(path):
        if not name.startswith("idm_rt."):
            continue
        other = name.split(".")[1]
        if not (PACKAGE / other).is_dir() and not (PACKAGE / f"{other}.py").is_file():
            continue  # a name of idm_rt/__init__.py, such as __version__
        other_layer, other_group = place_of(other)
        allowed = other_layer < layer or (other_layer, other_group) == (layer, group)
        assert allowed, f"{own} may not import {name}"


@pytest.mark.parametrize("path", files_of("idm_rt"), ids=lambda path: str(path.relative_to(PACKAGE)))
def test_each_third_party_has_one_door(path: Path) -> None:
    inside = path.relative_to(PACKAGE).as_posix()
    for name in imports(path):
        doors = DOORS.get(name.split(".")[0])
        assert doors is None or inside.startswith(tuple(doors)), f"{inside} may not import {name}"


def test_the_run_time_knows_neither_export_nor_demos() -> None:
    for path in files_of("idm_rt"):
        assert not {name.split(".")[0] for name in imports(path)} & {"export", "demos", "tests"}, path


def test_demos_use_no_private_name() -> None:
    for path in files_of("demos"):
        for name in imports(path):
            assert name.split(".")[0] not in ("export", "tests"), path
            assert not any(part.startswith("_") and part != "__future__" for part in name.split(".")), path


def loaded_by(code: str) -> set[str]:
    """First names of the modules a fresh interpreter has loaded after ``code``."""
    code += "; import sys; sys.stdout.write(' '.join(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT, check=True)
    return {name.split(".")[0] for name in done.stdout.split()}


@pytest.mark.parametrize(
    "code",
    [
        "import idm_rt",
        "from idm_rt import EnhancerConfig; EnhancerConfig(steps=2)",
        "import idm_rt.cli; from idm_rt.cli.parser import build_parser; build_parser()",
    ],
)
def test_importing_the_package_is_light(code: str) -> None:
    assert not loaded_by(code) & set(HEAVY)


def test_the_default_engine_needs_no_torch() -> None:
    """Everything `enhance` loads, with torch made impossible to import."""
    block = "import sys; sys.modules['torch'] = None; "
    loads = "import idm_rt.cli.enhance, idm_rt.cli.bench, idm_rt.cli.doctor, idm_rt.backends.openvino_backend"
    assert "openvino" in loaded_by(f"{block}{loads}, idm_rt.backends.onnxruntime_backend")


def test_help_answers_at_once() -> None:
    """Processor time, the best of three: the wall clock of a busy machine says nothing about us."""
    code = (
        "import resource, subprocess, sys;"
        "subprocess.run([sys.executable, '-m', 'idm_rt', '--help'], check=True, stdout=subprocess.DEVNULL);"
        "used = resource.getrusage(resource.RUSAGE_CHILDREN); print(used.ru_utime + used.ru_stime)"
    )
    run = [sys.executable, "-c", code]
    seconds = [float(subprocess.run(run, capture_output=True, text=True, cwd=ROOT, check=True).stdout) for _ in "123"]
    assert min(seconds) <= 0.3
