"""Whether everything works on this machine, found by trying it, and how to cure what does not."""

from __future__ import annotations

import os
import sys
from collections import Counter
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from idm_rt import model_store
from idm_rt.backends import probe_engines
from idm_rt.backends.nvidia import first_gpu, why_no_gpu
from idm_rt.backends.trt.library import ENGINE_NAMES
from idm_rt.backends.trt.plan_store import PlanStore
from idm_rt.errors import IdmError
from idm_rt.machine import describe_machine, describe_versions
from idm_rt.restorer import open_restorer
from idm_rt.virtual_devices import find_virtual_camera

_MIN_PYTHON = (3, 11)
_CODECS_READ = ("h264", "hevc", "vp8", "vp9", "av1", "aac", "opus")
_CODECS_WRITTEN = ("libx264", "libvpx-vp9")
_REINSTALL = "pip install --force-reinstall idm-rt"
_BUILD = "idm-rt engines build, or it is built at the first start"


@dataclass(frozen=True, slots=True)
class Check:
    """One line of the diagnosis."""

    name: str
    ok: bool
    found: str
    cure: str = ""  # what to type or do; empty when ok
    needed: bool = True  # without it ``idm-rt enhance`` cannot run


@dataclass(frozen=True, slots=True)
class Diagnosis:
    """All that was found."""

    checks: tuple[Check, ...]
    engines: tuple[dict[str, Any], ...]  # of every engine: name, available, reason, version, chosen
    machine: dict[str, Any]
    versions: dict[str, str]

    @property
    def ok(self) -> bool:
        """Whether ``idm-rt enhance`` can run."""
        return all(check.ok for check in self.checks if check.needed)

    @property
    def first_fault(self) -> Check | None:
        """The needed thing that is to be cured first."""
        return next((check for check in self.checks if check.needed and not check.ok), None)

    def to_dict(self) -> dict[str, Any]:
        """Plain values, ready for JSON."""
        return {
            "ok": self.ok,
            "checks": [asdict(check) for check in self.checks],
            "engines": list(self.engines),
            "machine": self.machine,
            "versions": self.versions,
        }


def diagnose() -> Diagnosis:
    """Look at everything ``idm-rt enhance`` needs. Opens the engine and the face tracker for real (some seconds)."""
    engine, choices = check_engine()
    checks = [check_python(), check_opencv(), check_codecs(), *check_models(), check_cache()]
    checks += [check_gpu(), check_plans(), engine, check_tracker()]
    checks += check_cameras()
    return Diagnosis(tuple(checks), tuple(choices), describe_machine(), describe_versions())


def check_python() -> Check:
    """The interpreter's version."""
    found = ".".join(map(str, sys.version_info[:3]))
    wanted = ".".join(map(str, _MIN_PYTHON))
    return Check("python", sys.version_info >= _MIN_PYTHON, found, f"install Python {wanted} or newer")


def check_opencv() -> Check:
    """Exactly one distribution may own the folder cv2."""
    from importlib.metadata import distributions

    names = sorted({str(d.metadata["Name"]).lower() for d in distributions() if d.metadata["Name"]})
    found = [name for name in names if name.startswith("opencv-")]
    if found == ["opencv-contrib-python"]:
        return Check("opencv", True, found[0])
    remove = " ".join(found) or "opencv-contrib-python"
    cure = f"pip uninstall -y {remove} && pip install opencv-contrib-python"
    return Check("opencv", False, f"{', '.join(found) or 'none'}; expected opencv-contrib-python alone", cure)


def check_codecs() -> Check:
    """What the FFmpeg inside PyAV can decode and encode."""
    try:
        import av
    except ImportError as error:
        return Check("video codecs", False, f"PyAV cannot be imported ({error})", "pip install --force-reinstall av")
    missing = [name for name in _CODECS_READ if not _has_codec(av, name, "r")]
    missing += [name for name in _CODECS_WRITTEN if not _has_codec(av, name, "w")]
    if missing:
        found = f"PyAV {av.__version__} lacks {', '.join(missing)}"
        return Check("video codecs", False, found, "pip install --force-reinstall --only-binary av av")
    return Check("video codecs", True, f"PyAV {av.__version__}: {', '.join((*_CODECS_READ, *_CODECS_WRITTEN))}")


def _has_codec(av: Any, name: str, mode: str) -> bool:
    try:
        av.Codec(name, mode)
    except (av.codec.codec.UnknownCodecError, ValueError):
        return False
    return True


def check_models() -> Iterator[Check]:
    """One check per model file: there, and of the recorded size and hash."""
    landmarker = model_store.FACE_LANDMARKER
    for file in model_store.inventory():
        fetched = file.name == landmarker.record.path
        cure = "idm-rt models fetch" if fetched else f"{_REINSTALL}, or restore engines/models of the checkout"
        yield Check(f"model file {file.name}", file.ok, str(file.path) if file.ok else str(file.fault), cure)


def check_cache() -> Check:
    """The cache's folder can be written; needed only until the landmark model lies in it."""
    folder = model_store.cache_dir()
    place = _existing_parent(folder)
    ok = os.access(place, os.W_OK | os.X_OK)
    found = f"{folder} can {'' if ok else 'not '}be written"
    cure = f"set {model_store.CACHE_VARIABLE} to a folder that can be written"
    return Check("cache", ok, found, cure, needed=False)


def _existing_parent(path: Path) -> Path:
    return next(folder for folder in (path, *path.absolute().parents) if folder.exists())


def check_engine() -> tuple[Check, list[dict[str, Any]]]:
    """Open the default model as ``auto`` would and restore an empty face; also the state of every engine."""
    engines = [asdict(status) for status in probe_engines()]
    try:
        with open_restorer() as restorer:
            restorer.restore(np.zeros((1, restorer.size, restorer.size, 3), np.uint8), restorer.manifest.steps[0])
    except IdmError as error:
        cure = "idm-rt models verify; idm-rt enhance --engine NAME tries one engine alone"
        return Check("engine", False, str(error), cure), [{**engine, "chosen": False} for engine in engines]
    passed_over = dict(restorer.passed_over)
    for engine in engines:
        engine["chosen"] = engine["name"] == restorer.engine
        engine["reason"] = restorer.reason if engine["chosen"] else passed_over.get(engine["name"], engine["reason"])
    found = (
        f"auto takes {restorer.engine} ({restorer.precision} on {restorer.device}): {restorer.reason}; "
        f"{restorer.precision}: {restorer.precision_reason}"
    )
    return Check("engine", True, found), engines


def check_gpu() -> Check:
    """The NVIDIA GPU, by its driver. Having none is no fault; a driver that does not work is."""
    gpu = first_gpu()
    if gpu is not None:
        found = f"{gpu.name}, driver {gpu.driver}, compute capability {gpu.compute_capability}, {gpu.memory_mb} MB"
        return Check("gpu", True, found, needed=False)
    reason, broken = why_no_gpu()
    return Check("gpu", not broken, f"none found: {reason}", "nvidia-smi says what the driver lacks", needed=False)


def check_plans() -> Check:
    """The TensorRT plans that are built, and where. Without a GPU there is no need of any."""
    store = PlanStore()
    plans = store.plans()
    bad = [plan.path.name for plan in plans if plan.fault is not None]
    kinds = Counter(plan.engine for plan in plans)
    counted = f" ({', '.join(f'{engine} {count}' for engine, count in sorted(kinds.items()))})" if kinds else ""
    found = f"{len(plans)} built{counted} in {store.folder}"
    if bad:
        return Check("tensorrt plans", False, f"{found}, damaged: {', '.join(bad)}", _BUILD, needed=False)
    missing = (
        not plans and first_gpu() is not None and any(e.available for e in probe_engines() if e.name in ENGINE_NAMES)
    )
    return Check("tensorrt plans", not missing, found, _BUILD, needed=False)


def check_tracker() -> Check:
    """Open the face tracker, if its model is in the cache, and look at an empty picture."""
    from idm_rt.tracking import open_tracker

    path = model_store.cache_dir() / model_store.FACE_LANDMARKER.record.path
    if not path.is_file():
        return Check("face tracker", False, f"{path} is missing", "idm-rt models fetch")
    try:
        with open_tracker(path) as tracker:
            tracker.update(np.zeros((64, 64, 3), np.uint8), 0.0)
            found = f"auto takes {tracker.backend}: {tracker.backend_reason}"
    except (IdmError, RuntimeError, OSError) as error:
        return Check("face tracker", False, str(error), "pip install --force-reinstall openvino mediapipe")
    return Check("face tracker", True, found)


def check_cameras() -> Iterator[Check]:
    """What ``idm-rt camera`` needs beyond the engine: a camera, the package and the virtual camera device."""
    from idm_rt.media.capture import list_cameras

    locked = [node.name for node in Path("/dev").glob("video[0-9]*") if not os.access(node, os.R_OK | os.W_OK)]
    try:
        cameras = list_cameras()
    except IdmError as error:
        yield Check("camera", False, str(error), "idm-rt camera --source FILE", needed=False)
    else:
        found = ", ".join(f"{camera.name} ({camera.description})" for camera in cameras) or "none found"
        cure = "connect a camera, or idm-rt camera --source screen, test or a file"
        if locked and not cameras:
            found = f"none that may be opened: permission denied for {', '.join(sorted(locked))}"
            cure = 'sudo usermod -aG video "$USER", then log in again'
        yield Check("camera", bool(cameras), found, "" if cameras else cure, needed=False)
    for finding in find_virtual_camera():
        yield Check(finding.name, finding.ok, finding.found, finding.cure, needed=False)


def diagnosis_lines(diagnosis: Diagnosis) -> list[str]:
    """The diagnosis for people."""
    machine = diagnosis.machine
    features = ", ".join(machine["cpu_features"]) or "no known vector instructions"
    lines = [f"{machine['cpu']}, {machine['cores']} cores ({features}), {machine['os']}"]
    lines.append(", ".join(f"{name} {version}" for name, version in diagnosis.versions.items()))
    for check in diagnosis.checks:
        mark = "ok  " if check.ok else "BAD " if check.needed else "note"
        lines.append(f"{mark} {check.name}: {check.found}" + (f" -> {check.cure}" if not check.ok else ""))
    for engine in diagnosis.engines:
        mark = "->" if engine["chosen"] else "- "
        lines.append(f"{mark} engine {engine['name']}: {engine['reason']}")
    return lines
