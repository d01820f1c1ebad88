#!/usr/bin/env bash
# Set everything up in .venv, then check format, lint and types, and run the tests.
#
#   bash tests/run.sh [PYTEST_ARGUMENT...]
#
# PYTHON=python3.12 chooses the interpreter (3.11 or newer).
set -euo pipefail

cd "$(dirname "${BASH_SOURCE[0]}")/.."
venv=.venv

[ -x "$venv/bin/python" ] || "${PYTHON:-python3}" -m venv "$venv"
"$venv/bin/python" -m pip install --quiet --editable '.[dev]'
# 95 MB with a builder that needs no GPU: with it, the tests compile the TensorRT path for real.
"$venv/bin/python" -m pip install --quiet --editable '.[rtx]' || echo "going on: tests that build TensorRT plans are skipped"

"$venv/bin/idm-rt" models fetch || echo "going on: tests that need the landmark model are skipped"
"$venv/bin/ruff" format --check .
"$venv/bin/ruff" check .
"$venv/bin/mypy"
"$venv/bin/python" -m pytest "$@"
