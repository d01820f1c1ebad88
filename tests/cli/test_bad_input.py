"""Bad input: one line of error, the right exit code, nothing lost, nothing half-written."""

from __future__ import annotations

import os
import resource
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path

import av
import numpy as np
import pytest
from cli_tools import Cli, leftovers, wall, write_sound, write_video
from PIL import Image

Make = Callable[[Path], Path]


def missing(folder: Path) -> Path:
    return folder / "missing.mp4"


def empty_folder(folder: Path) -> Path:
    (folder / "nothing").mkdir()
    return folder / "nothing"


def empty_file(folder: Path) -> Path:
    (folder / "empty.mp4").touch()
    return folder / "empty.mp4"


def text_as_video(folder: Path) -> Path:
    (folder / "text.mp4").write_text("this is no video\n" * 50)
    return folder / "text.mp4"


def text_as_photo(folder: Path) -> Path:
    (folder / "text.png").write_text("this is no photo\n" * 50)
    return folder / "text.png"


def half_a_photo(folder: Path) -> Path:
    Image.fromarray(wall(64, 64)).save(folder / "half.png")
    data = (folder / "half.png").read_bytes()
    (folder / "half.png").write_bytes(data[: len(data) // 2])
    return folder / "half.png"


def cut_before_its_index(folder: Path) -> Path:
    data = write_video(folder / "cut.mp4", [wall(48, 64, i) for i in range(20)]).read_bytes()
    (folder / "cut.mp4").write_bytes(data[: len(data) // 2])  # this muxer writes the index last
    return folder / "cut.mp4"


def only_sound(folder: Path) -> Path:
    with av.open(str(folder / "sound.mp4"), "w") as output:
        write_sound(output, output.add_stream("aac", rate=48000))
    return folder / "sound.mp4"


def no_frames(folder: Path) -> Path:
    """A video track whose only packet is not a picture."""
    whole = write_video(folder / "whole.mkv", [wall(48, 64)])
    with av.open(str(whole)) as source, av.open(str(folder / "none.mkv"), "w") as output:
        stream = output.add_stream_from_template(source.streams.video[0])
        packet = av.Packet(b"\x00\x00\x00\x01\x09\x10")
        packet.stream, packet.pts, packet.dts, packet.time_base = stream, 0, 0, stream.time_base
        output.start_encoding()
        output.mux(packet)
    return folder / "none.mkv"


INPUTS: list[tuple[Make, str, str]] = [
    (missing, "out.mp4", "missing.mp4 does not exist"),
    (empty_folder, "out", "holds no photo"),
    (empty_file, "out.mp4", "is empty (0 bytes)"),
    (text_as_video, "out.mp4", "is not a photo or video"),
    (text_as_photo, "out.png", "is not a photo that can be read"),
    (cut_before_its_index, "out.mp4", "index is missing"),
    (only_sound, "out.mp4", "holds only sound"),
    (no_frames, "out.mkv", "no frame could be decoded"),
]


@pytest.mark.parametrize(("make", "output", "message"), INPUTS, ids=lambda value: getattr(value, "__name__", ""))
def test_an_input_that_cannot_be_read_is_refused(
    make: Make, output: str, message: str, tmp_path: Path, cli: Cli, request: pytest.FixtureRequest
) -> None:
    options = request.getfixturevalue("models") if make is text_as_photo else ()
    result = cli("enhance", make(tmp_path), tmp_path / output, *options)
    assert result.code == 1 and message in result.error
    assert not (tmp_path / output).exists() and leftovers(tmp_path) == []


def test_half_a_photo_leaves_no_output(tmp_path: Path, cli: Cli, models: Sequence[object]) -> None:
    result = cli("enhance", half_a_photo(tmp_path), tmp_path / "out.png", "--report", tmp_path / "r.json", *models)
    assert result.code == 1 and "is damaged" in result.error
    assert sorted(path.name for path in tmp_path.iterdir()) == ["half.png"]


@pytest.fixture
def photo(tmp_path: Path) -> Path:
    Image.fromarray(wall(32, 32)).save(tmp_path / "photo.png")
    return tmp_path / "photo.png"


@pytest.mark.parametrize(
    ("output", "message"),
    [
        ("photo.png", "is the input itself"),
        ("there.png", "exists already; add --overwrite"),
        ("folder", "is a folder, expected a file name"),
        ("no/such/out.png", "does not exist; create it"),
        ("out.mp4", "is a photo but the output"),
        ("out.xyz", "has suffix .xyz"),
        ("out", "has no suffix"),
    ],
)
def test_an_output_that_cannot_be_right_is_refused(
    output: str, message: str, photo: Path, tmp_path: Path, cli: Cli
) -> None:
    (tmp_path / "there.png").write_bytes(b"keep me")
    (tmp_path / "folder").mkdir()
    before = photo.read_bytes()
    result = cli("enhance", photo, tmp_path / output)
    assert result.code == 1 and message in result.error
    assert photo.read_bytes() == before and (tmp_path / "there.png").read_bytes() == b"keep me"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["folder", "photo.png", "there.png"]


@pytest.mark.parametrize("option", ["--report", "--before-after"])
def test_the_other_outputs_are_not_overwritten_either(option: str, photo: Path, tmp_path: Path, cli: Cli) -> None:
    (tmp_path / "there.png").write_bytes(b"keep me")
    result = cli("enhance", photo, tmp_path / "out.png", option, tmp_path / "there.png")
    assert result.code == 1 and "exists already; add --overwrite" in result.error
    assert (tmp_path / "there.png").read_bytes() == b"keep me" and not (tmp_path / "out.png").exists()
    twins = cli("enhance", photo, tmp_path / "out.png", option, tmp_path / "out.png")
    assert twins.code == 1 and "two outputs have the same name" in twins.error


def test_a_folder_keeps_results_that_are_there(photo: Path, tmp_path: Path, cli: Cli) -> None:
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "photo.png").write_bytes(b"keep me")
    result = cli("enhance", tmp_path, tmp_path / "out")
    assert result.code == 1 and "holds photo.png already" in result.error
    assert (tmp_path / "out" / "photo.png").read_bytes() == b"keep me"


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_a_folder_without_write_access(photo: Path, tmp_path: Path, cli: Cli) -> None:
    closed = tmp_path / "closed"
    closed.mkdir(mode=0o500)
    result = cli("enhance", photo, closed / "out.png")
    assert result.code == 1 and "is not writable" in result.error


def test_a_full_disk_leaves_no_file(tmp_path: Path, cli_process: Cli, models: Sequence[object]) -> None:
    """A file size limit fails where a full disk fails: in the write calls of the encoder's file."""
    source = write_video(tmp_path / "in.mp4", [wall(240, 320, i) for i in range(12)])
    limit = 100_000
    assert source.stat().st_size > 2 * limit

    def limit_file_size() -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))

    result = cli_process("enhance", source, tmp_path / "out.mp4", *models, before=limit_file_size)
    last = result.err.splitlines()[-1]  # before it: the tracker may warn that it has no room for its nets either
    assert result.code == 1 and "the disk is full" in last and "Traceback" not in result.err
    assert sorted(path.name for path in tmp_path.iterdir()) == ["in.mp4"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--engine", "cuda"), "invalid choice: 'cuda'"),
        (("--steps", "3"), "invalid choice: 3"),
        (("--strength", "1.5"), "'1.5' is not a number from 0 to 1"),
        (("--strength", "much"), "'much' is not a number from 0 to 1"),
        (("--strength", "nan"), "'nan' is not a number from 0 to 1"),
        (("--max-faces", "0"), "'0' is not a whole number from 1 to 32"),
        (("--threads", "-1"), "'-1' is not a whole number from 1"),
        (("--sharpen",), "unrecognized arguments: --sharpen"),
    ],
)
def test_wrong_usage(arguments: tuple[str, ...], message: str, photo: Path, tmp_path: Path, cli: Cli) -> None:
    result = cli("enhance", photo, tmp_path / "out.png", *arguments)
    assert result.code == 2 and message in result.error and not (tmp_path / "out.png").exists()


@pytest.mark.parametrize("arguments", [(), ("improve",), ("models",), ("models", "sell"), ("bench", "--size", "0x1")])
def test_a_command_that_is_none(arguments: tuple[str, ...], cli: Cli) -> None:
    result = cli(*arguments)
    assert result.code == 2 and "--help" in result.error


def test_an_unknown_model(photo: Path, tmp_path: Path, cli: Cli, tiny_folder: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("IDM_RT_MODELS", str(tiny_folder.parent))
    result = cli("enhance", photo, tmp_path / "out.png", "--model", "nobody")
    assert result.code == 1 and "unknown model 'nobody'" in result.error and "choose one of: tiny" in result.error
    assert not (tmp_path / "out.png").exists()


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda data: data[:-1], "bytes, expected"),
        (lambda data: bytes([data[0] ^ 1]) + data[1:], "has sha256"),
    ],
    ids=["cut", "one bit"],
)
def test_a_corrupt_model(
    damage: Callable[[bytes], bytes], message: str, photo: Path, tmp_path: Path, cli: Cli, tiny_folder: Path
) -> None:
    model = shutil.copytree(tiny_folder, tmp_path / "model")
    (model / "model.onnx").write_bytes(damage((model / "model.onnx").read_bytes()))
    result = cli("enhance", photo, tmp_path / "out.png", "--model", model)
    assert result.code == 1 and message in result.error and not (tmp_path / "out.png").exists()


def test_a_wrong_landmarker(photo: Path, tmp_path: Path, cli: Cli, tiny_folder: Path) -> None:
    (tmp_path / "face.task").write_bytes(b"x")
    result = cli(
        *("enhance", photo, tmp_path / "out.png", "--model", tiny_folder, "--landmarker", tmp_path / "face.task")
    )
    assert result.code == 1 and "has 1 bytes, expected 3758596" in result.error


@pytest.mark.parametrize(("engine", "extra"), [("tensorrt", "tensorrt"), ("tensorrt-rtx", "rtx")])
def test_a_missing_optional_package_names_its_extra(
    engine: str, extra: str, photo: Path, tmp_path: Path, cli: Cli, tiny_folder: Path
) -> None:
    import importlib.util

    if importlib.util.find_spec(engine.replace("-", "_")) is not None:
        pytest.skip(f"{engine} is installed here")
    result = cli("enhance", photo, tmp_path / "out.png", "--model", tiny_folder, "--engine", engine)
    assert result.code == 1 and f"pip install 'idm-rt[{extra}]'" in result.error


def test_steps_the_model_does_not_offer(photo: Path, tmp_path: Path, cli: Cli, models: Sequence[object]) -> None:
    import json

    model = shutil.copytree(Path(str(models[1])), tmp_path / "model")
    values = json.loads((model / "model.json").read_text())
    (model / "model.json").write_text(json.dumps({**values, "steps": [1]}))
    result = cli("enhance", photo, tmp_path / "out.png", "--model", model, "--steps", "4")
    assert result.code == 2 and "steps is 4; model tiny offers 1" in result.error


def test_debug_shows_where_an_error_came_from(tmp_path: Path, cli: Cli) -> None:
    for arguments in (("--debug", "enhance"), ("enhance", "--debug")):
        result = cli(*arguments, tmp_path / "missing.mp4", tmp_path / "out.mp4")
        assert result.code == 1 and "Traceback" in result.err and "check_input" in result.err


def test_a_bug_is_one_line_too(tmp_path: Path, cli: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    import idm_rt.cli.sample as sample

    def broken(*arguments: object, **options: object) -> None:
        np.zeros(3).reshape(2, 2)

    monkeypatch.setattr(sample, "copy_sample", broken)
    result = cli("sample", tmp_path / "out.mp4")
    assert result.code == 1 and "unexpected ValueError" in result.error and "--debug shows where" in result.error
