"""Chromium -> relay -> Chromium: what a viewer sees, and what the relay adds, restored and passed through.

    python demos/webrtc_relay/measure.py [--seconds 30] [--rounds 2] [--json FILE]

640x480 at 30 frames per second, one face, one step. Both rows come from the same relay and browser, in turns. The added
delay is from the arrival of a frame's last packet to the end of its encoding, as the relay itself measures it.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import tempfile
import time
from pathlib import Path
from typing import Any
from urllib.request import urlopen

from browser import chromium, find_chromium, hang_up, publish, running_relay, view, viewer_stats, write_camera

from idm_rt.machine import describe_machine, describe_versions

MODES = {"restored": "", "passed through": "?enhance=0"}
WARM_UP_S = 6.0


def relay_delay_ms(address: str, room: str) -> dict[str, float]:
    """Quantiles of the added delay of a room's publisher, from the relay's metrics."""
    with urlopen(f"{address}/metrics", timeout=10) as response:
        text = response.read().decode()
    found = re.findall(rf'session_delay_seconds{{quantile="([\d.]+)",role="publish",room="{room}".*}} (\S+)', text)
    return {f"p{round(float(quantile) * 100)}": round(float(value) * 1000.0, 1) for quantile, value in found}


def frames_by_outcome(address: str) -> dict[str, float]:
    """Frames so far, by what became of them."""
    with urlopen(f"{address}/metrics", timeout=10) as response:
        text = response.read().decode()
    found = re.findall(r'idm_relay_frames_total{cause="(\w*)",outcome="(\w+)"} (\S+)', text)
    return {f"{outcome} {cause}".strip(): float(value) for cause, outcome, value in found}


def measure(context: Any, address: str, mode: str, seconds: float, number: int) -> dict[str, Any]:
    """One call: publish, view, wait, read both ends."""
    room = f"measure{number}"
    publisher = publish(context, address, room, MODES[mode])
    viewer = view(context, address, room)
    time.sleep(WARM_UP_S)
    first, before, began_s = viewer_stats(viewer), frames_by_outcome(address), time.monotonic()
    time.sleep(seconds)
    last, span_s = viewer_stats(viewer), time.monotonic() - began_s
    after, delay = frames_by_outcome(address), relay_delay_ms(address, room)
    hang_up(viewer)
    hang_up(publisher)
    return {
        "mode": mode,
        "seconds": round(span_s, 1),
        "size": f"{last.get('frameWidth')}x{last.get('frameHeight')}",
        "decoded_fps": round((last["framesDecoded"] - first["framesDecoded"]) / span_s, 1),
        "presented_fps": round((last["presented"] - first["presented"]) / span_s, 1),
        "freezes": last.get("freezeCount", 0) - first.get("freezeCount", 0),
        "longest_gap_ms": round(max(last["gaps"], default=0.0)),
        "added_delay_ms": delay,
        "frames": {name: count - before.get(name, 0.0) for name, count in after.items()},
        "load": os.getloadavg()[0],
    }


def table(rows: list[dict[str, Any]]) -> str:
    """The rows as Markdown."""
    heads = ["mode", "size", "decoded fps", "presented fps", "freezes", "longest gap ms", "added delay p50 / p95 ms"]
    heads += ["restored", "load"]
    lines = [f"| {' | '.join(heads)} |", f"|{' --- |' * len(heads)}"]
    for row in rows:
        total, restored = sum(row["frames"].values()), row["frames"].get("restored", 0.0)
        share = f"{100 * restored / total:.0f} %" if total and row["mode"] == "restored" else "-"
        delay = row["added_delay_ms"]
        lines.append(
            f"| {row['mode']} | {row['size']} | {row['decoded_fps']} | {row['presented_fps']} | {row['freezes']} | "
            f"{row['longest_gap_ms']} | {delay.get('p50')} / {delay.get('p95')} | {share} | {row['load']:.1f} |"
        )
    return "\n".join(lines)


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--seconds", type=float, default=30.0, help="of each call (default: %(default)s)")
    parser.add_argument("--rounds", type=int, default=2, help="calls of each mode (default: %(default)s)")
    parser.add_argument("--json", type=Path, help="also write the rows to this file")
    options = parser.parse_args()
    if find_chromium() is None:
        parser.error("no Chromium found; install it (Debian: apt-get install chromium) or set CHROMIUM")
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        camera = write_camera(folder / "camera.y4m")
        with running_relay(folder) as address, chromium(camera) as context:
            order = [mode for _ in range(options.rounds) for mode in MODES]
            rows = [measure(context, address, mode, options.seconds, number) for number, mode in enumerate(order)]
    print(table(rows))
    if options.json is not None:
        report = {"rows": rows, "machine": describe_machine(), "versions": describe_versions()}
        options.json.write_text(json.dumps(report, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
