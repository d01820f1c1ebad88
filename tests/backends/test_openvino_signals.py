"""Ctrl-C after engines were opened and closed."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from idm_rt.model_store import find_model

SCRIPT = """
import os, signal, sys, time
from pathlib import Path
from idm_rt.backends.openvino_backend import OpenVinoBackend

signal.signal(signal.SIGINT, signal.default_int_handler)  # a background job inherits that it is ignored
engines = [OpenVinoBackend(Path(sys.argv[1]), int(sys.argv[2]), threads=1) for _ in range(2)]
while engines:
    engines.pop(0).close()
try:
    os.kill(os.getpid(), signal.SIGINT)
    time.sleep(60)  # any thread may get the signal; Python acts on it in this one, a moment later
except KeyboardInterrupt:
    print("interrupted")
"""


def test_ctrl_c_after_two_engines_were_closed_is_no_crash(tiny_folder: Path) -> None:
    manifest = find_model(tiny_folder)
    arguments = [str(manifest.verified_file("onnx")), str(manifest.crop_size)]
    done = subprocess.run([sys.executable, "-c", SCRIPT, *arguments], capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, (done.returncode, done.stderr)
    assert done.stdout.split() == ["interrupted"]
