"""Raw pictures: what a foreign reader gets from a file or a pipe, and pipes whose reader is slow, late or gone."""

from __future__ import annotations

import os
import threading
import time
from contextlib import suppress
from pathlib import Path

import av
import numpy as np
import pytest
from skimage.data import astronaut

from idm_rt.errors import ConfigError, MediaError
from idm_rt.media.live_video import LiveVideoFile
from idm_rt.virtual_camera.raw_sinks import PipeSink, RawFileSink, RawFormat
from idm_rt.virtual_camera.sinks import OutputEnded

PHOTO = np.ascontiguousarray(astronaut()[:240, :320])
SIZE = (320, 240)


def read_back(path: Path, **more: str) -> tuple[list[np.ndarray], av.VideoStream]:
    with av.open(str(path), **more) as container:
        stream = container.streams.video[0]
        return [frame.to_ndarray(format="rgb24") for frame in container.decode(stream)], stream


@pytest.mark.parametrize("suffix", [".y4m", ".mp4", ".mkv", ".webm"])
def test_a_file_plays_at_its_rate_and_looks_right(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"call{suffix}"
    sink = RawFileSink(path, RawFormat("y4m", SIZE, 29.97)) if suffix == ".y4m" else LiveVideoFile(path, SIZE, 29.97)
    sink.write(PHOTO, 0, 1)
    sink.write(PHOTO[::-1], 1, 4)  # the next three ticks were missed
    assert not path.exists()  # nobody sees half a file
    sink.close()
    sink.close()
    frames, stream = read_back(path)
    assert len(frames) == 5 and float(stream.average_rate) == pytest.approx(29.97, abs=0.05)
    assert np.abs(frames[0].astype(int) - PHOTO).mean() < 6.0
    assert np.abs(frames[4].astype(int) - PHOTO[::-1]).mean() < 6.0
    assert [entry.name for entry in tmp_path.iterdir()] == [path.name]


def test_an_unused_video_file_leaves_nothing(tmp_path: Path) -> None:
    LiveVideoFile(tmp_path / "call.mp4", SIZE, 30.0).close()
    assert not list(tmp_path.iterdir())


def test_a_folder_that_is_gone_is_one_line(tmp_path: Path) -> None:
    for make in (
        lambda path: LiveVideoFile(path, SIZE, 30.0),
        lambda path: RawFileSink(path, RawFormat("y4m", SIZE, 30.0)),
    ):
        with pytest.raises(MediaError, match="cannot write"):
            make(tmp_path / "nowhere" / "call.mp4")


@pytest.mark.parametrize(("name", "size"), [("rgb24", 320 * 240 * 3), ("i420", 320 * 240 * 3 // 2)])
def test_bare_formats_have_the_size_that_readers_expect(name: str, size: int) -> None:
    form = RawFormat(name, SIZE, 30.0)
    assert form.header == b"" and len(form.encode(PHOTO)) == size
    with pytest.raises(ConfigError, match="choose one of"):
        RawFormat("bgr", SIZE, 30.0)


@pytest.fixture
def fifo(tmp_path: Path) -> Path:
    os.mkfifo(tmp_path / "pipe")
    return tmp_path / "pipe"


def small(value: int) -> np.ndarray:
    return np.full((8, 8, 3), value, np.uint8)


def test_a_pipe_without_a_reader_holds_nothing_up(fifo: Path) -> None:
    sink = PipeSink(fifo, RawFormat("y4m", (8, 8), 30.0))
    start_s = time.monotonic()
    for tick in range(1000):
        sink.write(small(1), tick, 1)
    assert time.monotonic() - start_s < 5.0
    sink.close()


def test_each_reader_of_a_pipe_gets_a_header_and_whole_pictures(fifo: Path) -> None:
    sink = PipeSink(fifo, RawFormat("y4m", (8, 8), 30.0))
    for round_ in range(2):
        reader = os.open(fifo, os.O_RDONLY | os.O_NONBLOCK)
        sink.write(small(50 + round_), 0, 1)
        data = os.read(reader, 1 << 16)
        assert data.startswith(b"YUV4MPEG2 W8 H8 F30:1 ") and data.count(b"FRAME\n") == 1
        assert len(data) - data.index(b"FRAME\n") == 6 + 96
        os.close(reader)
        sink.write(small(60), 1, 1)  # finds that the reader is gone
    sink.close()


def test_a_slow_reader_gets_whole_pictures_and_the_newest_ones(fifo: Path) -> None:
    """A picture is larger than a pipe holds: the reader takes some, and the writer never waits for it."""
    size = (512, 512)
    sink, form = PipeSink(fifo, RawFormat("rgb24", size, 30.0)), RawFormat("rgb24", size, 30.0)
    length = len(form.encode(np.zeros((512, 512, 3), np.uint8)))
    reader = os.open(fifo, os.O_RDONLY | os.O_NONBLOCK)
    got, ends = bytearray(), threading.Event()

    def read() -> None:
        while not ends.is_set():
            with suppress(BlockingIOError):
                got.extend(os.read(reader, 1 << 16))
            time.sleep(0.002)

    thread = threading.Thread(target=read)
    thread.start()
    longest_s, tick = 0.0, 0
    end_s = time.monotonic() + 1.5
    while time.monotonic() < end_s:
        start_s = time.monotonic()
        sink.write(np.full((512, 512, 3), divmod(tick, 256)[::-1] + (0,), np.uint8), tick, 1)
        longest_s = max(longest_s, time.monotonic() - start_s)
        tick += 1
        time.sleep(0.005)
    ends.set()
    thread.join()
    sink.close()
    os.close(reader)
    ends_at = range(length, len(got) + 1, length)
    whole = [np.frombuffer(bytes(got[end - length : end]), np.uint8).reshape(-1, 3) for end in ends_at]
    assert len(whole) >= 2 and sink.passed_over > 0
    assert all((picture == picture[0]).all() for picture in whole)  # none is torn
    colours = [tuple(picture[0].tolist()) for picture in whole]
    assert len(set(colours)) == len(colours)  # and none is shown twice


def test_when_the_reader_of_standard_output_goes_the_camera_ends(monkeypatch: pytest.MonkeyPatch) -> None:
    reader, writer = os.pipe()

    class Stdout:
        def fileno(self) -> int:
            return writer

    monkeypatch.setattr("sys.stdout", Stdout())
    sink = PipeSink(None, RawFormat("y4m", (8, 8), 30.0))
    sink.write(small(1), 0, 1)
    assert os.read(reader, 1 << 16).startswith(b"YUV4MPEG2")
    os.close(reader)
    with pytest.raises(OutputEnded):
        sink.write(small(2), 1, 1)
    sink.close()
    assert os.get_blocking(writer)  # as it was
    os.close(writer)
