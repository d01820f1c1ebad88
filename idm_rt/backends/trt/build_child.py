"""The process in which a plan is built: ``python -m idm_rt.backends.trt.build_child JOB.json``.

A process of its own, because a builder may crash, and because it would hold the interpreter's lock for seconds. It
writes its result beside the job; the parent moves it into the plan store.
"""

from __future__ import annotations

import json
import os
import sys
from contextlib import suppress
from pathlib import Path

from idm_rt.backends.trt.library import load_library
from idm_rt.backends.trt.network import build
from idm_rt.errors import IdmError

_NICENESS = 10  # a call goes on beside the build


def main(argv: list[str]) -> int:
    """Do the job; returns the exit status. What went wrong is in result.json."""
    job = json.loads(Path(argv[1]).read_text(encoding="utf-8"))
    folder = Path(argv[1]).parent
    if hasattr(os, "nice"):
        with suppress(OSError):
            os.nice(_NICENESS)
    try:
        result = run(job, folder)
    except IdmError as error:
        result = {"error": str(error)}
    (folder / "result.json").write_text(json.dumps(result), encoding="utf-8")
    return 1 if "error" in result else 0


def run(job: dict[str, str], folder: Path) -> dict[str, object]:
    """Build; the plan and the timing cache go into ``folder``.

    Args:
        job: engine, model (path of the ONNX file), size (px), timing_cache (path, need not exist).
    """
    from idm_rt.backends.trt.step_graph import step_graph

    library = load_library(job["engine"])
    size = int(job["size"])
    cache = Path(job["timing_cache"])
    built = build(
        library,
        step_graph(Path(job["model"]), size).SerializeToString(),
        size,
        cache.read_bytes() if cache.is_file() else b"",
    )
    (folder / "plan").write_bytes(built.plan)
    (folder / "timing.cache").write_bytes(built.timing_cache)
    return {"version": library.version, "layers": built.layers}


if __name__ == "__main__":
    raise SystemExit(main(sys.argv))
