"""``idm-rt camera`` as its users run it: processes, terminals, signals, real files and a real screen.

How much of a live stream is enhanced depends on how busy the machine is; what must hold on any machine is asserted.
"""

from __future__ import annotations

import json
import os
import pty
import signal
import subprocess
import sys
import termios
import time
import urllib.request
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
from cli_tools import Cli, command, leftovers, write_video
from virtual_screen import Screen, free_screen

from idm_rt.sample_clip import sample_clip

ROOT = Path(__file__).resolve().parents[2]
PATIENCE_S = 90.0


def frames_of(path: Path) -> tuple[list[np.ndarray], float, tuple[int, int]]:
    """RGB pictures, rate and size of a video file, as another program reads it."""
    with av.open(str(path)) as container:
        stream = container.streams.video[0]
        pictures = [frame.to_ndarray(format="rgb24") for frame in container.decode(stream)]
        return pictures, float(stream.average_rate or 0), (stream.width, stream.height)


def distance(one: np.ndarray, other: np.ndarray) -> float:
    return float(np.abs(one.astype(np.int16) - other).mean())


class Process:
    """A running command whose output goes to files: no pipe can fill up or be held open."""

    def __init__(self, folder: Path, *arguments: object, **more: Any) -> None:
        self._out, self._err = folder / "stdout.txt", folder / "stderr.txt"
        with self._out.open("w") as out, self._err.open("w") as err:
            self.child = subprocess.Popen(
                command("camera", *arguments), cwd=ROOT, stdout=out, stderr=err, **{"stdin": subprocess.DEVNULL, **more}
            )

    @property
    def out(self) -> str:
        return self._out.read_text()

    @property
    def err(self) -> str:
        return self._err.read_text()

    def wait_for(self, holds: Callable[[], object], what: str) -> None:
        end_s = time.monotonic() + PATIENCE_S
        while not holds():
            assert self.child.poll() is None, f"ended with {self.child.returncode}: {self.err}"
            assert time.monotonic() < end_s, f"{what}: {self.out} {self.err}"
            time.sleep(0.02)

    def end(self, number: int) -> float:
        """Send a signal; seconds until the process was gone."""
        start_s = time.monotonic()
        self.child.send_signal(number)
        assert self.child.wait(PATIENCE_S) == 0, self.err
        return time.monotonic() - start_s

    def url(self) -> str:
        self.wait_for(lambda: "control page: http" in self.out, "no control page")
        return next(line.split()[-1] for line in self.out.splitlines() if "control page" in line)


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Callable[..., Process]]:
    running: list[Process] = []

    def run(*arguments: object, **more: Any) -> Process:
        running.append(Process(tmp_path, *arguments, **more))
        return running[-1]

    yield run
    for process in running:
        if process.child.poll() is None:
            process.child.kill()
            process.child.wait()


def status_of(url: str, changes: dict[str, object] | None = None) -> dict[str, Any]:
    """Asks the control page, or changes its controls, as its script does."""
    base, token = url.split("/?token=")
    path = "/api/status" if changes is None else "/api/controls"
    headers = {"X-Token": token, "Origin": base, "Content-Type": "application/json"}
    data = None if changes is None else json.dumps(changes).encode()
    with urllib.request.urlopen(urllib.request.Request(base + path, data, headers), timeout=30) as answer:
        return dict(json.load(answer))


@pytest.fixture(scope="module")
def slow_call(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The sample call at five pictures a second, so that a busy machine can follow too."""
    pictures, _, _ = frames_of(sample_clip())
    path = tmp_path_factory.mktemp("clip") / "slow.mp4"
    return write_video(path, pictures[::2], [index * 18_000 for index in range(50)])


def wait_until_enhanced(process: Process, url: str, count: int) -> None:
    """Wait for enhanced pictures; skips where the machine is so busy that the engine rightly has no part."""
    end_s, status = time.monotonic() + PATIENCE_S, status_of(url)
    while status["output"]["shown"].get("enhanced", 0) < count:
        assert process.child.poll() is None and status["engine_error"] is None, f"{status} {process.err}"
        if time.monotonic() > end_s:
            worker, load = status["worker"], os.getloadavg()[0]
            assert not worker["faults"] and load > 2 * (os.cpu_count() or 1), f"little is enhanced: {worker}"
            pytest.skip(f"other programs take this machine (load {load:.0f}): {worker['bypassed']}")
        time.sleep(0.2)
        status = status_of(url)


@pytest.mark.slow
def test_a_file_is_enhanced_by_the_real_engine_into_a_file_of_constant_rate(
    start: Callable[..., Process], tmp_path: Path, models: Sequence[object], slow_call: Path
) -> None:
    """The shipped model: faces change, everything else does not, and the file has every tick."""
    target, report = tmp_path / "out.y4m", tmp_path / "report.json"
    process = start("--source", slow_call, "--fps", "10", "--output", target, "--report", report)
    url = process.url()
    wait_until_enhanced(process, url, 20)
    process.end(signal.SIGINT)
    pictures, rate, size = frames_of(target)
    told = json.loads(report.read_text())
    assert (rate, size) == (10.0, (640, 480)) and len(pictures) == told["output_stats"]["ticks"]
    assert told["output_stats"]["written"] + told["output_stats"]["missed"] == len(pictures)
    inside = np.zeros((120, 160), bool)
    inside[15:-15, 30:-30] = True  # the face; the border tells which original it is
    originals = [picture[::4, ::4] for picture in frames_of(slow_call)[0]]
    faces_changed = strange = 0
    for picture in (picture[::4, ::4] for picture in pictures):
        best = min(originals, key=lambda original: distance(picture[~inside], original[~inside]))
        outside = distance(picture[~inside], best[~inside])
        if outside > 4.0:  # more than the conversion to YUV and back
            strange += 1
        else:
            faces_changed += distance(picture[inside], best[inside]) > outside + 0.3
    assert strange <= told["output_stats"]["shown"].get("placeholder", 0) + told["output_stats"]["missed"]
    assert faces_changed >= 3  # of 20 or more; a busy machine misses ticks
    assert not leftovers(tmp_path)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_signals_end_it_within_three_seconds_with_the_file_finished(
    start: Callable[..., Process], tmp_path: Path, number: int
) -> None:
    target = tmp_path / "out.mp4"
    process = start("--source", "pattern", "--size", "320x180", "--output", target, "--off", "--no-page")
    process.wait_for(lambda: "showing pattern" in process.out, "did not start")
    time.sleep(1.0)
    before = os.times()
    took_s = process.end(number)
    assert took_s < 3.0 or os.getloadavg()[0] > 2 * (os.cpu_count() or 1), f"{took_s:.1f} s, {before}"
    pictures, rate, size = frames_of(target)
    assert rate == 30.0 and size == (320, 180) and len(pictures) >= 15
    assert not leftovers(tmp_path) and "pictures shown" in process.out and "Traceback" not in process.err


def test_the_duration_gives_the_exact_number_of_pictures(cli_process: Cli, tmp_path: Path) -> None:
    done = cli_process(
        "camera", "--source", "pattern", "--size", "160x90", "--fps", "20", "--duration", "1.5",
        "--output", tmp_path / "out.y4m", "--off", "--no-page",
    )  # fmt: skip
    assert done.code == 0, done.err
    pictures, rate, size = frames_of(tmp_path / "out.y4m")
    assert (len(pictures), rate, size) == (30, 20.0, (160, 90))


def test_standard_output_holds_pictures_and_nothing_else(tmp_path: Path) -> None:
    with (tmp_path / "err").open("w") as err:
        child = subprocess.Popen(
            command("camera", "--source", "pattern", "--size", "64x36", "--output", "-", "--off", "--no-page",
                    "--raw-format", "rgb24"),
            cwd=ROOT, stdout=subprocess.PIPE, stderr=err,
        )  # fmt: skip
    assert child.stdout is not None
    try:
        pictures = [child.stdout.read(64 * 36 * 3) for _ in range(10)]
        child.stdout.close()  # the reader has enough
        assert child.wait(PATIENCE_S) == 0
    finally:
        child.kill()
    images = [np.frombuffer(data, np.uint8).reshape(36, 64, 3) for data in pictures]
    live = [image for image in images if image[2, 2].tolist() == [220, 40, 40]]
    assert len(live) >= 8 and "Traceback" not in (tmp_path / "err").read_text()


@pytest.mark.slow
def test_a_screen_is_lost_and_found_again_while_the_output_goes_on(
    start: Callable[..., Process], tmp_path: Path
) -> None:
    screens = free_screen()
    screen: Screen = next(screens)
    process = start("--source", f"screen:{screen.name}", "--size", "320x240", "--output", tmp_path / "out.y4m", "--off")
    url = process.url()
    process.wait_for(lambda: status_of(url)["source"]["status"] == "live", "no picture")
    screen.end()
    process.wait_for(lambda: status_of(url)["source"]["status"] == "lost", "the loss was not noticed")
    process.wait_for(lambda: status_of(url)["output"]["shown"].get("placeholder", 0) >= 20, "no placeholder")
    screen.start()
    process.wait_for(lambda: status_of(url)["source"]["status"] == "live", "it did not come back")
    state = status_of(url)
    time.sleep(0.5)
    process.end(signal.SIGTERM)
    screens.close()
    assert state["source"]["losses"] == 1 and "trying again" in process.err
    pictures, _, _ = frames_of(tmp_path / "out.y4m")
    dark = [picture.mean() < 5.0 for picture in pictures]  # an empty screen; a placeholder is grey
    assert dark[-1] and not all(dark[len(dark) // 4 :]) and len(pictures) >= state["output"]["ticks"]


@pytest.fixture
def terminal() -> Iterator[tuple[int, int]]:
    ours, theirs = pty.openpty()
    yield ours, theirs
    os.close(ours)
    os.close(theirs)


def in_own_session(fd: int) -> Callable[[], None]:
    """The child's terminal, with the child in the foreground, as a shell starts it."""

    def before() -> None:
        import fcntl

        os.setsid()
        fcntl.ioctl(fd, termios.TIOCSCTTY, 0)

    return before


@pytest.mark.parametrize("ending", ["q", signal.SIGTERM])
def test_keys_change_it_and_the_terminal_is_left_as_it_was(
    start: Callable[..., Process], terminal: tuple[int, int], ending: str | int
) -> None:
    ours, theirs = terminal
    before = termios.tcgetattr(theirs)
    process = start(
        "--source", "pattern", "--size", "64x36", "--output", "none", "--off",
        stdin=theirs, preexec_fn=in_own_session(theirs),
    )  # fmt: skip
    url = process.url()
    process.wait_for(lambda: "keys: e on/off" in process.out, "no keys")
    assert not termios.tcgetattr(theirs)[3] & termios.ICANON  # keys come without Enter
    os.write(ours, b"e-c")
    process.wait_for(lambda: status_of(url)["controls"]["compare"], "the keys did nothing")
    live = status_of(url)["controls"]["live"]
    assert live["enabled"] is True and live["strength"] == 0.9
    os.write(ours, b"\x1b[A")  # an arrow key is no Escape
    time.sleep(0.2)
    assert process.child.poll() is None
    if isinstance(ending, str):
        os.write(ours, ending.encode())
        assert process.child.wait(PATIENCE_S) == 0, process.err
    else:
        process.end(ending)
    assert termios.tcgetattr(theirs) == before


def test_the_page_changes_a_running_camera(start: Callable[..., Process]) -> None:
    process = start("--source", "pattern", "--size", "64x36", "--output", "none", "--off")
    url = process.url()
    with urllib.request.urlopen(url, timeout=30) as answer:
        assert b"idm-rt camera" in answer.read()
    status_of(url, {"strength": 0.3, "steps": 4})
    live = status_of(url)["controls"]["live"]
    assert live["strength"] == 0.3 and live["steps"] == 4 and live["enabled"] is False
    process.end(signal.SIGINT)


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        (["--source", "nofile.mp4"], 2, "no file that exists"),
        (["--source", "/dev/video963", "--output", "none"], 1, "does not exist; idm-rt camera --list"),
        (["--source", "pattern", "--output", "out.txt"], 1, "no kind of file"),
        (["--source", "pattern", "--size", "641x480"], 2, "not a size of even numbers"),
        (["--source", "pattern", "--fps", "0"], 2, "not a number from 1 to 120"),
        (["--source", "pattern", "--fps", "nan"], 2, "not a number from 1 to 120"),
        (["--source", "pattern", "--page-port", "65536"], 2, "not a port"),
        (["--source", "pattern", "--strength", "2"], 2, "not a number from 0 to 1"),
    ],
)
def test_what_cannot_be_is_one_line(cli: Cli, arguments: list[str], code: int, words: str) -> None:
    done = cli("camera", *arguments)
    assert done.code == code and words in done.error


def test_a_screen_that_is_not_there_is_one_line(cli_process: Cli) -> None:
    done = cli_process("camera", "--source", "screen::963", "--output", "none")
    assert done.code == 1 and "check DISPLAY" in done.error


@pytest.mark.skipif(sys.platform != "linux", reason="names Linux's virtual camera")
def test_without_a_virtual_camera_the_modprobe_line_is_named(cli: Cli) -> None:
    pytest.importorskip("pyvirtualcam", reason="pyvirtualcam is not installed: pip install .[camera]")
    if list(Path("/sys/devices/virtual/video4linux").glob("*")):
        pytest.skip("this machine has a virtual camera")
    done = cli("camera", "--source", "pattern", "--size", "64x36")
    assert done.code == 1
    line = 'sudo modprobe v4l2loopback devices=1 exclusive_caps=1 card_label="idm-rt camera"'
    assert line in done.error


def test_without_the_package_the_extra_is_named(cli: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pyvirtualcam", None)
    done = cli("camera", "--source", "pattern", "--size", "64x36")
    assert done.code == 2 and "pip install 'idm-rt[camera]'" in done.error


def test_a_port_that_is_taken_is_one_line(cli: Cli) -> None:
    import socket

    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        port = taken.getsockname()[1]
        done = cli("camera", "--source", "pattern", "--size", "64x36", "--output", "none", "--page-port", port)
    assert done.code == 1 and f"port {port} of the control page cannot be had" in done.err


def test_the_lists_say_what_is_here_and_what_is_missing(cli: Cli) -> None:
    done = cli("camera", "--list")
    assert done.code == 0 and done.err == "" and "cameras:" in done.out and "virtual camera:" in done.out
    doctor = cli("doctor", "--json")
    checks = {check["name"]: check for check in json.loads(doctor.out)["checks"]}
    for name in ("camera", "virtual camera package", "virtual camera"):
        assert checks[name]["needed"] is False and (checks[name]["ok"] or checks[name]["cure"])
    assert checks["virtual camera"]["found"] in done.out
