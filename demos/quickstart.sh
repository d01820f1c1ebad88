#!/usr/bin/env bash
# Set everything up in .venv and enhance a video: the sample call, or the one you name.
#
#   bash demos/quickstart.sh [INPUT [OUTPUT_FOLDER]]
#
# PYTHON=python3.12 chooses the interpreter (3.11 or newer).
set -euo pipefail

source_dir="$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)"
input="${1:-}"
out="${2:-out}"
venv="$source_dir/.venv"

[ -x "$venv/bin/python" ] || "${PYTHON:-python3}" -m venv "$venv"
"$venv/bin/python" -m pip install --quiet --editable "$source_dir"

idm_rt="$venv/bin/idm-rt"
mkdir -p "$out"
"$idm_rt" models fetch
if [ -z "$input" ]; then
    input="$out/call.mp4"
    "$idm_rt" sample "$input" --overwrite
fi
"$idm_rt" enhance "$input" "$out/enhanced.mp4" \
    --before-after "$out/before_after.png" --report "$out/report.json" --overwrite
