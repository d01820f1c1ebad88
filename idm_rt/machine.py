"""Where a result was measured: processor, system, versions, commit. Standard library only."""

from __future__ import annotations

import importlib.metadata
import os
import platform
import re
import subprocess
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import idm_rt
from idm_rt.cpu_info import available_cpus

# Distributions whose version changes what comes out or how fast.
PACKAGES = (
    *("numpy", "opencv-contrib-python", "av", "mediapipe", "openvino", "onnxruntime", "pillow", "torch"),
    *("tensorrt", "tensorrt-rtx-cu13"),
)
# What inference engines look for, as Linux names it in /proc/cpuinfo.
_CPU_FEATURES = ("avx2", "fma", "avx_vnni", "avx512f", "avx512_vnni", "avx512_bf16", "amx_bf16", "amx_int8")
# The one that decides how fast a network runs, best first: processors of one name differ in it.
_VECTOR_UNITS = {
    "amx_bf16": "AMX", "avx512_bf16": "AVX512-BF16", "avx512f": "AVX512", "avx2": "AVX2",
    "sve": "SVE", "asimd": "NEON",
}  # fmt: skip
_ARM_FEATURES = ("asimd", "asimddp", "bf16", "i8mm", "sve")
_CPUINFO = Path("/proc/cpuinfo")
_PROC_STATUS = Path("/proc/self/status")


def describe_machine() -> dict[str, Any]:
    """Plain values, ready for JSON."""
    return {
        "cpu": cpu_model(),
        "cores": available_cpus(),  # those this process may use
        "cpu_features": cpu_features(),
        "memory_mb": _memory_mb(),
        "os": platform.platform(),
        "python": platform.python_version(),
    }


def describe_versions() -> dict[str, str]:
    """Version of idm_rt and of every package of ``PACKAGES`` that is installed; imports none of them."""
    versions = {"idm_rt": idm_rt.__version__}
    for name in PACKAGES:
        version = package_version(name)
        if version is not None:
            versions[name] = version
    return versions


def package_version(distribution: str) -> str | None:
    """Version of an installed distribution; None when it is not installed."""
    try:
        return importlib.metadata.version(distribution)
    except importlib.metadata.PackageNotFoundError:
        return None


def cpu_model(cpuinfo: Path = _CPUINFO) -> str:
    """Name of the processor, such as "AMD EPYC 7B13"."""
    match = re.search(r"^model name\s*:\s*(.+)$", _read(cpuinfo), re.MULTILINE)
    return match.group(1).strip() if match else platform.processor() or platform.machine()


def cpu_features(cpuinfo: Path = _CPUINFO) -> list[str]:
    """The vector instructions that matter to inference; empty where the system does not tell (not Linux)."""
    match = re.search(r"^(?:flags|Features)\s*:\s*(.+)$", _read(cpuinfo), re.MULTILINE)
    found = set(match.group(1).split()) if match else set()
    wanted = _ARM_FEATURES if "asimd" in found else _CPU_FEATURES
    return [name for name in wanted if name in found]


def cpu_name(machine: Mapping[str, Any]) -> str:
    """Processor and vector unit of a ``describe_machine``, such as "AMD EPYC (AVX2)"."""
    unit = next((text for feature, text in _VECTOR_UNITS.items() if feature in machine.get("cpu_features", ())), None)
    return f"{machine['cpu']} ({unit})" if unit else str(machine["cpu"])


def git_commit() -> str | None:
    """Commit of the checkout this package lies in, with "+" behind it when files differ; None without a checkout."""
    root = Path(__file__).resolve().parent.parent
    if not (root / ".git").exists():
        return None
    commit = _git(root, "rev-parse", "--short=12", "HEAD")
    changed = _git(root, "status", "--porcelain", "--untracked-files=no")
    return f"{commit}+" if commit and changed else commit


def _git(root: Path, *arguments: str) -> str | None:
    try:
        done = subprocess.run(["git", *arguments], cwd=root, capture_output=True, text=True, timeout=10, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return None
    return done.stdout.strip() if done.returncode == 0 else None


def resident_mb() -> float:
    """Memory of this process that lies in RAM now (RSS), MB; 0 where the system does not tell (not Linux)."""
    return _status_mb("VmRSS")


def peak_resident_mb() -> float:
    """The highest RSS of this process so far, MB; 0 where the system does not tell (not Linux)."""
    return _status_mb("VmHWM")


def _status_mb(key: str) -> float:
    match = re.search(rf"^{key}:\s*(\d+) kB$", _read(_PROC_STATUS), re.MULTILINE)
    return int(match.group(1)) * 1024 / 1e6 if match else 0.0


def _memory_mb() -> int | None:
    try:
        return round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 1e6)
    except (AttributeError, ValueError, OSError):  # not on Windows
        return None


def _read(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8", errors="replace")
    except OSError:
        return ""
