"""The state of a virtual camera in one line. Pure."""

from __future__ import annotations

from idm_rt.virtual_camera.records import CameraStatus, SourceStatus


def status_line(status: CameraStatus) -> str:
    """For a terminal: what is shown, how fast, how late, and what is wrong."""
    output, controls = status.output, status.controls
    parts = [_showing(status), f"{output.fps:.1f} fps", f"delay {output.delay_ms['p50_ms']:.0f} ms"]
    if controls.live.enabled:
        parts.append(f"{status.worker.level}, strength {controls.live.strength:.2f}")
    if controls.compare:
        parts.append("compare")
    if output.missed:
        parts.append(f"missed {output.missed}")
    return " | ".join(parts)


def _showing(status: CameraStatus) -> str:
    source = status.source
    if status.output.sink_error is not None:
        return f"OUTPUT LOST: {status.output.sink_error}"
    if source.status is SourceStatus.LOST:
        return f"CAMERA LOST (try {source.attempt}): {source.error}"
    if source.status is not SourceStatus.LIVE:
        return f"camera {source.status.value}"
    if not status.controls.live.enabled:
        return "off"
    if status.engine_error is not None:
        return f"ORIGINAL PICTURE: {status.engine_error}"
    return "on" if status.worker.engine == "running" else f"original picture: engine {status.worker.engine}"
