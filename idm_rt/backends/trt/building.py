"""From a key to a plan: out of the store, or built in a child process."""

from __future__ import annotations

import json
import logging
import os
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import idm_rt
from idm_rt.backends.trt.library import FLAVOURS
from idm_rt.backends.trt.plan_key import PlanKey
from idm_rt.backends.trt.plan_store import PlanStore, write_atomic
from idm_rt.errors import EngineError

log = logging.getLogger(__name__)

BUILD_WITHIN_S = 900.0
_LOOK_EVERY_S = 0.1
_CHILD = "idm_rt.backends.trt.build_child"


@dataclass(frozen=True, slots=True)
class ChildResult:
    """What a builder process leaves behind."""

    plan: bytes
    timing_cache: bytes
    facts: dict[str, Any]


RunChild = Callable[[PlanKey, Path, Path, float, threading.Event | None], ChildResult]


def ensure_plan(
    store: PlanStore,
    key: PlanKey,
    model: Path,
    *,
    timeout_s: float = BUILD_WITHIN_S,
    cancelled: threading.Event | None = None,
    run_child: RunChild | None = None,
) -> bytes:
    """The plan of a key; built first when the store has none. Several processes at a time build it once.

    Args:
        model: the fp16 ONNX file that the key names.
        cancelled: set it to give up.
        run_child: None = the real builder in a process of its own.

    Raises:
        EngineError: the build failed, took too long or was cancelled; the folder cannot be written.
    """
    plan = store.read(key)
    if plan is not None:
        return plan
    with store.locked(key, timeout_s):
        plan = store.read(key)  # another process may have built it meanwhile
        if plan is not None:
            return plan
        log.warning("building a plan for %s, once (seconds to some minutes): %s", key.engine, store.path(key))
        start = time.monotonic()
        child = (run_child or build_in_child)(key, model, store.timing_cache(key.engine), timeout_s, cancelled)
        facts = {**child.facts, "build_s": round(time.monotonic() - start, 2), "idm_rt": idm_rt.__version__}
        if child.timing_cache:
            write_atomic(store.timing_cache(key.engine), child.timing_cache)
        store.write(key, child.plan, facts)
        log.info("built in %.1f s: %s", facts["build_s"], store.path(key))
        return child.plan


def build_in_child(
    key: PlanKey, model: Path, timing_cache: Path, timeout_s: float, cancelled: threading.Event | None
) -> ChildResult:
    """Run the builder in a fresh interpreter (never a fork: CUDA does not survive one).

    Raises:
        EngineError: see ``ensure_plan``.
    """
    with tempfile.TemporaryDirectory(prefix="idm_rt_build_", ignore_cleanup_errors=True) as name:
        folder = Path(name)
        job = {"engine": key.engine, "model": str(model), "size": key.size, "timing_cache": str(timing_cache)}
        (folder / "job.json").write_text(json.dumps(job), encoding="utf-8")
        status = _run([sys.executable, "-m", _CHILD, str(folder / "job.json")], folder, timeout_s, cancelled)
        return _collect(folder, key, status)


def _run(command: list[str], folder: Path, timeout_s: float, cancelled: threading.Event | None) -> int:
    """Exit status of the child; it is killed when it takes too long or is not wanted any more."""
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(map(os.path.abspath, sys.path))}
    until = time.monotonic() + timeout_s
    with (folder / "log.txt").open("wb") as output:
        child = subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=output, stderr=output, env=environment, cwd=folder
        )
        try:
            while child.poll() is None:
                if cancelled is not None and cancelled.is_set():
                    raise EngineError("the build was cancelled")
                if time.monotonic() > until:
                    raise EngineError(f"the build took longer than {timeout_s:.0f} s; idm-rt engines build tries again")
                time.sleep(_LOOK_EVERY_S)
        finally:
            if child.poll() is None:
                child.kill()
                child.wait()
    return child.returncode


def _collect(folder: Path, key: PlanKey, status: int) -> ChildResult:
    """What the child left; EngineError when it left no plan."""
    result_file = folder / "result.json"
    result = json.loads(result_file.read_text(encoding="utf-8")) if result_file.is_file() else {}
    if "error" in result:
        raise EngineError(f"the plan for {key.engine} could not be built: {result['error']}")
    if status != 0 or not result:
        raise EngineError(
            f"the builder of {key.engine} ended with status {status}: {_last_line(folder / 'log.txt')}; "
            f"try another engine with --engine, or reinstall: {FLAVOURS[key.engine].install}"
        )
    if result["version"] != key.version:
        raise EngineError(f"{key.engine} {result['version']} built the plan, expected {key.version}; start again")
    facts = {"layers": result["layers"]}
    return ChildResult((folder / "plan").read_bytes(), (folder / "timing.cache").read_bytes(), facts)


def _last_line(path: Path) -> str:
    lines = path.read_text(encoding="utf-8", errors="replace").split("\n")
    return next((" ".join(line.split()) for line in reversed(lines) if line.strip()), "it said nothing")
