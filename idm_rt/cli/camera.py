"""``idm-rt camera``: a virtual webcam."""

from __future__ import annotations

import argparse
import sys
import threading
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from idm_rt.cli.camera_view import CameraView
from idm_rt.cli.enhance import configure
from idm_rt.cli.output import Console
from idm_rt.cli.signals import ending_signals, leave_threads_at_exit
from idm_rt.errors import ConfigError, IdmError, MediaError
from idm_rt.live_records import LiveControls
from idm_rt.media.files import check_output
from idm_rt.report import write_json
from idm_rt.sample_clip import sample_clip
from idm_rt.virtual_camera import (
    CameraControls,
    CameraOptions,
    SinkSpec,
    SourceSpec,
    VirtualCamera,
    natural_size,
    opener_of,
    parse_sink,
    parse_source,
    sink_opener,
)
from idm_rt.virtual_camera.records import CameraStatus
from idm_rt.virtual_devices import find_virtual_camera, loopbacks
from idm_rt.worker import enhancer_opener

_USUAL_SIZE = (1280, 720)
_FIRST_PICTURE_S = 20.0  # opening a camera may make the system ask the user
_LOOK_EVERY_S = 0.03


def run(options: argparse.Namespace, console: Console) -> int:
    """Run the camera until it ends, a signal comes, or the user quits; returns the exit code."""
    if options.list:
        return _list(console)
    source = parse_source(options.source, loop=not options.once, sample=sample_clip)
    sink = parse_sink(options.output, raw_format=options.raw_format, overwrite=options.overwrite, source=source.path)
    if options.report is not None:
        check_output(options.report, source=source.path, overwrite=options.overwrite)
    size = options.size or natural_size(source) or _USUAL_SIZE
    if sink.kind == "pipe" and sink.path is None and sys.stdout.isatty():
        raise ConfigError("the output - is a terminal; add | and a program that reads the pictures")
    with ending_signals() as stop:
        return _run_camera(options, console, _make(options, source, sink, size), sink, stop)


def _make(options: argparse.Namespace, source: SourceSpec, sink: SinkSpec, size: tuple[int, int]) -> VirtualCamera:
    config = configure(options, temporal=True)
    live = LiveControls(enabled=not options.off, steps=config.steps, strength=config.strength)
    ticks = None if options.duration is None else max(1, round(options.duration * options.fps))
    return VirtualCamera(
        opener_of(source, options.size or (None if source.kind == "camera" else size), options.fps),
        sink_opener(sink, size, options.fps),
        enhancer_opener(config),
        CameraOptions(size=size, fps=options.fps, max_ticks=ticks),
        CameraControls(live, compare=options.compare),
    )


def _run_camera(
    options: argparse.Namespace, console: Console, camera: VirtualCamera, sink: SinkSpec, stop: threading.Event
) -> int:
    # Standard output may be the picture's pipe: everything for people goes to standard error then.
    say = console.log if sink.kind == "pipe" and sink.path is None else console.say
    status: CameraStatus | None = None
    try:
        camera.prepare()
        if not options.wait:
            _wait_for_picture(camera, stop)
        camera.start()
        say(f"showing {options.source} on {camera.output_name}; Ctrl-C ends")
        with ExitStack() as stack:
            view = stack.enter_context(CameraView(camera, options, console, say))
            while not stop.is_set() and not camera.wait(_LOOK_EVERY_S) and view.update():
                pass
        status = camera.status()
    finally:
        if not camera.close():
            leave_threads_at_exit(0 if camera.failure is None else 1)
    if camera.failure is not None:
        raise camera.failure
    if options.report is not None:
        write_json(options.report, _report(status, options))
    say(_summary(status))
    return 0


def _wait_for_picture(camera: VirtualCamera, stop: threading.Event) -> None:
    """Fail now, in one line, if the source cannot be had: later it would be waited for.

    Raises:
        MediaError: it cannot.
    """
    waited_s = 0.0
    while waited_s < _FIRST_PICTURE_S and not stop.is_set():
        state = camera.source.wait_outcome(0.1)
        if state.error is not None:
            raise MediaError(state.error)
        if state.frames:
            return
        waited_s += 0.1
    if not stop.is_set():
        raise MediaError(f"the source gave no picture within {_FIRST_PICTURE_S:.0f} s; check it, or --wait for it")


def _summary(status: CameraStatus) -> str:
    output, shown = status.output, status.output.shown
    parts = ", ".join(f"{shown[name]} {name}" for name in ("enhanced", "original", "placeholder") if shown.get(name))
    return (
        f"{output.written} pictures shown ({parts or 'none'}), {output.missed} missed; "
        f"delay p50 {output.delay_ms['p50_ms']:.0f} ms, p95 {output.delay_ms['p95_ms']:.0f} ms"
    )


def _report(status: CameraStatus, options: argparse.Namespace) -> dict[str, Any]:
    return {"schema": 1, "source": options.source, "output": options.output, **_plain(status.to_dict())}


def _plain(values: dict[str, Any]) -> dict[str, Any]:
    """The state's own "source" and "output" under names that do not hide the options'."""
    names = {"source": "source_state", "output": "output_stats"}
    return {names.get(name, name): value for name, value in values.items()}


def _list(console: Console) -> int:
    from idm_rt.media.capture import list_cameras

    try:
        cameras = list_cameras()
    except IdmError as error:
        console.say(f"cameras: {error}")
    else:
        console.say("cameras:" if cameras else "cameras: none found")
        for camera in cameras:
            console.say(f"  {camera.name}  {camera.description}")
    devices = loopbacks(Path("/"))
    console.say("virtual cameras:")
    for device in devices:
        console.say(f"  {device.path}  {device.label}{'' if device.writable else '  (may not be written)'}")
    for finding in find_virtual_camera():
        console.say(f"  {finding.name}: {finding.found}" + ("" if finding.ok else f" -> {finding.cure}"))
    return 0
