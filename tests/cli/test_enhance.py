"""``idm-rt enhance`` on real files: what must come out, and what must stay."""

from __future__ import annotations

import fcntl
import json
import os
import pty
import signal
import struct
import subprocess
import termios
import time
from collections.abc import Sequence
from pathlib import Path

import av
import cv2
import numpy as np
import pytest
from cli_tools import Cli, command, leftovers, wall, write_video
from PIL import Image


def frames_of(path: Path) -> list[tuple[int, np.ndarray]]:
    """(microseconds, RGB) of every frame."""
    with av.open(str(path)) as container:
        return [
            (round(f.pts * f.time_base * 1_000_000), f.to_ndarray(format="rgb24")) for f in container.decode(video=0)
        ]


def read(path: Path) -> np.ndarray:
    return np.asarray(Image.open(path))


def swaying(portrait: np.ndarray, size: tuple[int, int], count: int) -> list[np.ndarray]:
    """The portrait, moving a little; (width, height) px."""
    shifts = [np.array([[1, 0, 60 + 4 * np.sin(i / 3)], [0, 1, 3 * np.cos(i / 2)]]) for i in range(count)]
    return [cv2.warpAffine(portrait, shift, size, borderMode=cv2.BORDER_REPLICATE) for shift in shifts]


def test_a_photo_changes_in_the_face_alone(
    tmp_path: Path, portrait: np.ndarray, cli: Cli, models: Sequence[object]
) -> None:
    Image.fromarray(portrait).save(tmp_path / "in.png")
    result = cli(
        *("enhance", tmp_path / "in.png", tmp_path / "out.png", "--report", tmp_path / "report.json"),
        *("--before-after", tmp_path / "both.png", "--steps", "2", *models),
    )
    assert result.code == 0 and result.err == ""
    assert "faces in 1 of them, 1 restored in all by tiny" in result.out
    out = read(tmp_path / "out.png")
    changed = (out != portrait).any(axis=2)
    assert changed[60:180, 170:280].mean() > 0.5  # the face
    assert not changed[260:].any() and not changed[:, 350:].any()  # suit and shuttle
    assert read(tmp_path / "both.png").shape[0] == 480
    report = json.loads((tmp_path / "report.json").read_text())
    assert (report["frames"], report["faces"], report["restored"], report["steps"]) == (1, 1, 1, 2)
    assert report["engine"]["name"] == "openvino" and report["engine"]["reason"]
    assert {e["name"] for e in report["engine"]["passed_over"]} >= {"tensorrt", "torch"}
    assert len(report["model"]["sha256"]["onnx"]) == 64 and report["bypassed"] == report["dropped"] == 0
    for stage in ("decode", "track", "crop", "restore", "blend", "composite", "frame", "encode"):
        assert 0 <= report["stages_ms"][stage]["p50_ms"] <= report["stages_ms"][stage]["p95_ms"]
    assert report["stages_ms"]["frame"]["p50_ms"] > 0 and report["fps"] > 0


def test_strength_zero_returns_the_file(
    tmp_path: Path, portrait: np.ndarray, cli: Cli, models: Sequence[object]
) -> None:
    Image.fromarray(portrait).save(tmp_path / "in.png")
    result = cli("enhance", tmp_path / "in.png", tmp_path / "out.png", "--strength", "0", *models)
    assert result.code == 0 and "the output equals the input" in result.out
    assert (tmp_path / "out.png").read_bytes() == (tmp_path / "in.png").read_bytes()


def test_a_folder_of_unusual_photos(tmp_path: Path, portrait: np.ndarray, cli: Cli, models: Sequence[object]) -> None:
    source, out = tmp_path / "in", tmp_path / "out"
    source.mkdir()
    gray = cv2.cvtColor(portrait, cv2.COLOR_RGB2GRAY)
    exif = Image.Exif()
    exif[0x0112] = 6  # stored on its side: turn clockwise to show
    Image.fromarray(np.rot90(portrait)).save(source / "turned.png", exif=exif)
    Image.fromarray(gray).save(source / "gray.png")
    Image.fromarray(np.dstack([portrait, np.where(portrait[..., 0] > 90, 255, 7).astype(np.uint8)])).save(
        source / "alpha.png"
    )
    cv2.imwrite(str(source / "deep.png"), portrait[..., ::-1].astype(np.uint16) * 257 + 3)
    Image.fromarray(portrait[:359, :451]).save(source / "odd.png")
    Image.fromarray(wall(1, 1)).save(source / "dot.png")
    Image.fromarray(cv2.resize(portrait, (3840, 2160))).save(source / "large.jpg", quality=70)
    Image.fromarray(portrait[60:180, 230:400]).save(source / "half.png")  # the face is cut by the border
    (source / "broken.png").write_bytes(b"\x89PNG\r\n\x1a\n")
    (source / "notes.txt").write_text("not a photo")
    result = cli("enhance", source, out, "--report", tmp_path / "report.json", *models)
    assert result.code == 1 and "1 of the photos could not be enhanced, the first is broken.png" in result.err
    names = ["alpha.png", "deep.png", "dot.png", "gray.png", "half.png", "large.jpg", "odd.png", "turned.png"]
    assert sorted(path.name for path in out.iterdir()) == names
    report = json.loads((tmp_path / "report.json").read_text())
    assert report["frames"] == 8 and list(report["failed"]) == ["broken.png"] and report["bypassed"] == 0
    alpha = read(out / "alpha.png")
    assert np.array_equal(alpha[..., 3], read(source / "alpha.png")[..., 3])
    for name in ("alpha.png", "gray.png", "odd.png", "turned.png", "large.jpg"):
        assert (out / name).read_bytes() != (source / name).read_bytes(), name
    assert read(out / "gray.png").shape == gray.shape and read(out / "odd.png").shape == (359, 451, 3)
    assert cv2.imread(str(out / "deep.png"), cv2.IMREAD_UNCHANGED).dtype == np.uint16
    assert (out / "dot.png").read_bytes() == (source / "dot.png").read_bytes()
    assert Image.open(out / "large.jpg").size == (3840, 2160)


def test_a_video_keeps_times_size_and_sound(
    tmp_path: Path, portrait: np.ndarray, cli: Cli, models: Sequence[object]
) -> None:
    pts = [0, 3600, 5000, 14400, 14900, 20000, 30000, 33333, 45000, 60000]
    source = write_video(tmp_path / "in.mp4", swaying(portrait, (641, 359), len(pts)), pts, sound=True)
    result = cli("enhance", source, tmp_path / "out.mp4", "--report", tmp_path / "report.json", *models)
    assert result.code == 0 and result.err == "" and "10 frames written; faces in 10 of them" in result.out
    before, after = frames_of(source), frames_of(tmp_path / "out.mp4")
    assert [t for t, _ in after] == [t for t, _ in before]
    assert after[0][1].shape == (359, 641, 3)
    difference = np.abs(after[5][1].astype(int) - before[5][1])
    assert difference[60:180, 230:340].mean() > 3 * difference[:, 450:].mean()  # the face, and what is far from it
    with av.open(str(source)) as a, av.open(str(tmp_path / "out.mp4")) as b:
        sounds = [[bytes(p) for p in file.demux(file.streams.audio[0])] for file in (a, b)]
    assert sounds[0] == sounds[1] and len(sounds[0]) > 10
    report = json.loads((tmp_path / "report.json").read_text())
    assert report["frames"] == report["frames_with_faces"] == 10 and report["input"]["has_audio"]


def test_compare_is_side_by_side(tmp_path: Path, portrait: np.ndarray, cli: Cli, models: Sequence[object]) -> None:
    source = write_video(tmp_path / "in.mp4", swaying(portrait, (480, 360), 10))
    result = cli("enhance", source, tmp_path / "out.mkv", "--compare", *models)
    assert result.code == 0
    _, picture = frames_of(tmp_path / "out.mkv")[-1]  # in the first frames the correction fades in
    assert picture.shape == (360, 964, 3)
    left, right = picture[:, :480].astype(int), picture[:, 484:].astype(int)
    assert np.abs(left - right)[60:180, 230:340].mean() > np.abs(left - right)[:, 400:].mean() + 2


def test_nobody_in_the_video(tmp_path: Path, cli: Cli, models: Sequence[object]) -> None:
    source = write_video(tmp_path / "in.mp4", [wall(96, 128, i) for i in range(5)])
    result = cli("enhance", source, tmp_path / "out.mp4", "--before-after", tmp_path / "both.png", *models)
    assert result.code == 0 and "no face found: the output equals the input (copied)" in result.out
    assert (tmp_path / "out.mp4").read_bytes() == source.read_bytes()
    other = cli("enhance", source, tmp_path / "out.mkv", *models)
    assert other.code == 0 and "no face found: the output equals the input (re-encoded)" in other.out


def test_a_cut_video_gives_what_can_be_decoded_and_says_so(tmp_path: Path, cli: Cli, models: Sequence[object]) -> None:
    whole = write_video(tmp_path / "whole.mkv", [wall(120, 160, i) for i in range(25)])
    data = whole.read_bytes()
    (tmp_path / "cut.mkv").write_bytes(data[: len(data) // 2])
    result = cli("enhance", tmp_path / "cut.mkv", tmp_path / "out.mkv", "--report", tmp_path / "r.json", *models)
    assert result.code == 0 and "the file is damaged or cut" in result.out
    assert 5 <= len(frames_of(tmp_path / "out.mkv")) < 25
    assert "damaged or cut" in json.loads((tmp_path / "r.json").read_text())["input"]["damage"]


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_signal_leaves_no_half_written_file(
    number: signal.Signals, code: int, tmp_path: Path, portrait: np.ndarray, models: Sequence[object]
) -> None:
    source = write_video(tmp_path / "in.mp4", swaying(portrait, (640, 480), 8) * 60)
    arguments = ("enhance", source, tmp_path / "out.mp4", "--report", tmp_path / "report.json", *models)
    process = subprocess.Popen(command(*arguments), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    deadline = time.monotonic() + 120
    while not leftovers(tmp_path) and process.poll() is None and time.monotonic() < deadline:
        time.sleep(0.02)
    time.sleep(0.5)
    assert process.poll() is None, "it ended before the signal"
    process.send_signal(number)
    _, err = process.communicate(timeout=60)
    assert process.returncode == code
    expected = ["idm-rt: error: interrupted; unfinished files were removed"] if number == signal.SIGINT else []
    assert err.splitlines() == expected
    assert sorted(path.name for path in tmp_path.iterdir()) == ["in.mp4"]


def test_progress_is_for_terminals_only(tmp_path: Path, portrait: np.ndarray, models: Sequence[object]) -> None:
    """With a pseudo-terminal as stderr there is a bar with rate and time left; elsewhere nothing (see above)."""
    source = write_video(tmp_path / "in.mp4", swaying(portrait, (320, 240), 12))
    primary, secondary = pty.openpty()
    fcntl.ioctl(secondary, termios.TIOCSWINSZ, struct.pack("HHHH", 24, 100, 0, 0))  # rows, columns
    arguments = command("enhance", source, tmp_path / "out.mp4", *models)
    process = subprocess.Popen(arguments, stdout=subprocess.DEVNULL, stderr=secondary)
    os.close(secondary)
    shown = b""
    while chunk := _read(primary):
        shown += chunk
    os.close(primary)
    assert process.wait(timeout=60) == 0
    assert b"/12 [" in shown and b"<" in shown and b"frames" in shown


def _read(descriptor: int) -> bytes:
    try:
        return os.read(descriptor, 4096)
    except OSError:  # Linux: the other end was closed
        return b""
