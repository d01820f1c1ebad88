"""What an enhancement did: as a record for machines and as a paragraph for people."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from idm_rt.enhance_files import FileJob, FileResult
from idm_rt.enhancer import Enhancer
from idm_rt.machine import describe_machine, describe_versions, peak_resident_mb
from idm_rt.media.files import os_errors, replacing
from idm_rt.restorer import Restorer
from idm_rt.tracking import FaceTracker

SCHEMA = 1


def build_report(job: FileJob, result: FileResult, enhancer: Enhancer) -> dict[str, Any]:
    """Plain values, ready for JSON. Times are milliseconds of work per picture."""
    counts, config = enhancer.counts, enhancer.config
    return {
        "schema": SCHEMA,
        "input": {"path": str(job.source.path), "kind": job.kind, **result.input_info, "damage": result.damage},
        "output": {
            "path": str(job.output),
            "bytes": job.output.stat().st_size if job.output.is_file() else None,
            "compare": job.compare,
            "copy_of_input": result.copied,
            "before_after": str(result.before_after) if result.before_after else None,
        },
        "frames": result.pictures,
        "frames_changed": result.changed,
        "frames_with_faces": counts.frames_with_faces,
        "faces": counts.faces,
        "faces_per_frame": round(counts.faces / counts.frames, 3) if counts.frames else 0.0,
        "restored": counts.restored,
        "scene_cuts": counts.scene_cuts,
        "dropped": 0,  # a file waits for us: nothing is ever dropped
        "bypassed": sum(counts.bypassed.values()),
        "bypassed_by_cause": dict(counts.bypassed),
        "failed": result.failed,
        "elapsed_s": round(result.elapsed_s, 3),
        "fps": round(result.pictures / result.elapsed_s, 2) if result.elapsed_s else None,
        "stages_ms": enhancer.timer.summary(),
        "memory_peak_mb": round(peak_resident_mb(), 1),
        **describe_restorer(enhancer.restorer),
        **describe_tracker(enhancer.tracker),
        "steps": config.steps,
        "strength": config.strength,
        "config": config.to_dict(),
        "machine": describe_machine(),
        "versions": describe_versions(),
    }


def describe_restorer(restorer: Restorer) -> dict[str, Any]:
    """Engine and model in plain values."""
    manifest = restorer.manifest
    return {
        "engine": {
            "name": restorer.engine,
            "precision": restorer.precision,
            "precision_reason": restorer.precision_reason,
            "device": restorer.device,
            "reason": restorer.reason,
            "passed_over": [{"name": name, "reason": reason} for name, reason in restorer.passed_over],
        },
        "model": {
            "name": manifest.name,
            "version": manifest.version,
            "sha256": {kind: record.sha256 for kind, record in manifest.files.items()},
        },
    }


def describe_tracker(tracker: FaceTracker) -> dict[str, Any]:
    """What runs the face nets and why, in plain values."""
    return {"tracker": {"backend": tracker.backend, "reason": tracker.backend_reason}}


def write_json(path: Path, values: Mapping[str, Any]) -> None:
    """Write a record; the file appears when it is complete, and replaces one of that name.

    Raises:
        MediaError: it cannot be written.
    """
    with os_errors(path), replacing(path) as temporary:
        temporary.write_text(json.dumps(values, indent=2) + "\n", encoding="utf-8")


def summarize(report: Mapping[str, Any]) -> str:
    """One paragraph: what was found, what was done, how fast, where it lies."""
    sentences = [_faces(report), _speed(report), _damage(report), _bypassed(report), _failed(report), _where(report)]
    return " ".join(sentence for sentence in sentences if sentence)


def engine_line(restorer: Restorer) -> str:
    """Which engine runs, why, and what was passed over."""
    line = f"engine {restorer.engine} ({restorer.precision} on {restorer.device}): {restorer.reason}"
    line += f"; {restorer.precision}: {restorer.precision_reason}"
    passed = ", ".join(name for name, _ in restorer.passed_over)
    return line + (f"; passed over: {passed} (idm-rt doctor says why)" if passed else "")


def tracker_line(tracker: FaceTracker) -> str:
    """What runs the face nets, and why."""
    return f"face tracker on {tracker.backend}: {tracker.backend_reason}"


def _faces(report: Mapping[str, Any]) -> str:
    unit = "frame" if report["input"]["kind"] == "video" else "photo"
    total = _count(report["frames"], unit)
    if report["strength"] == 0.0:
        return f"{total} written; strength is 0: the output equals the input ({_equal_how(report)})."
    if not report["faces"]:
        if report["bypassed"]:
            return f"{total} written."
        return f"{total} written; no face found: the output equals the input ({_equal_how(report)})."
    seen, steps = report["frames_with_faces"], _count(report["steps"], "step")
    engine, model = report["engine"], report["model"]
    return (
        f"{total} written; faces in {seen} of them, {report['restored']} restored in all by {model['name']} "
        f"on {engine['name']} ({engine['precision']}), {steps}, strength {report['strength']:g}."
    )


def _equal_how(report: Mapping[str, Any]) -> str:
    return "re-encoded" if report["input"]["kind"] == "video" and not report["output"]["copy_of_input"] else "copied"


def _speed(report: Mapping[str, Any]) -> str:
    frame = report["stages_ms"].get("frame")
    work = f", {frame['p50_ms']:.1f} ms of enhancing per picture (p95 {frame['p95_ms']:.1f})" if frame else ""
    rate = f" ({report['fps']:.1f} per second{work})" if report["fps"] else ""
    return f"It took {report['elapsed_s']:.1f} s{rate}."


def _damage(report: Mapping[str, Any]) -> str:
    damage = report["input"]["damage"]
    return f"Careful: {damage}; what could be decoded was written." if damage else ""


def _bypassed(report: Mapping[str, Any]) -> str:
    if not report["bypassed"]:
        return ""
    causes = "; ".join(report["bypassed_by_cause"])
    return f"{_count(report['bypassed'], 'picture')} shown as they were, because of a fault: {causes}."


def _failed(report: Mapping[str, Any]) -> str:
    failed = report["failed"]
    return f"{_count(len(failed), 'photo')} could not be enhanced: {', '.join(failed)}." if failed else ""


def _where(report: Mapping[str, Any]) -> str:
    extra = report["output"]["before_after"]
    return f"Output: {report['output']['path']}" + (f"; before/after picture: {extra}" if extra else "") + "."


def _count(number: int, unit: str) -> str:
    return f"{number} {unit}{'' if number == 1 else 's'}"
