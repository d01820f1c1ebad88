"""Opening the default engine tells nobody about it."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]

CODE = """
import multiprocessing.process, socket, sys
def refuse(*_, **__):
    raise AssertionError("reported")
multiprocessing.process.BaseProcess.start = refuse
socket.socket.connect = refuse
import idm_rt.backends.openvino_backend
loaded = [name for name in sys.modules if name.startswith("openvino_telemetry") and sys.modules[name] is not None]
sys.exit(f"loaded: {loaded}" if loaded else 0)
"""


def test_importing_the_engine_loads_no_telemetry() -> None:
    done = subprocess.run([sys.executable, "-c", CODE], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
