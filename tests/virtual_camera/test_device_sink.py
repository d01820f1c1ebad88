"""The system's virtual camera: the real ``pyvirtualcam.Camera`` on a registered backend, and every way to lack one."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from idm_rt.errors import ConfigError, MediaError
from idm_rt.virtual_camera.device_sink import DeviceSink
from idm_rt.virtual_camera.sink_choice import SinkSpec, parse_sink, sink_opener

SIZE = (64, 48)


class FileBackend:
    """A device as pyvirtualcam wants one; appends what it is sent to a file named by ``device``."""

    opened = closed = 0
    unplugged = False

    def __init__(self, *, width: int, height: int, fps: float, fourcc: int, device: str | None, **_: Any) -> None:
        if device is None:
            raise RuntimeError("no device found. See the documentation.")
        type(self).opened += 1
        self._device, self._file = device, Path(device).open("ab")  # noqa: SIM115 - closed by close()
        self.expected = width * height * 3

    def close(self) -> None:
        type(self).closed += 1
        self._file.close()

    def send(self, frame: np.ndarray) -> None:
        if type(self).unplugged:
            raise RuntimeError("device is gone")
        assert frame.ndim == 1 and frame.size == self.expected
        self._file.write(frame.tobytes())

    def device(self) -> str:
        return self._device

    def native_fourcc(self) -> int | None:
        return None


@pytest.fixture
def backend(monkeypatch: pytest.MonkeyPatch) -> type[FileBackend]:
    pyvirtualcam = pytest.importorskip("pyvirtualcam", reason="pyvirtualcam is not installed: pip install .[camera]")
    fresh = type("FreshBackend", (FileBackend,), {"opened": 0, "closed": 0})
    monkeypatch.setattr(pyvirtualcam.camera, "BACKENDS", {"file": fresh})
    return fresh


def test_the_real_camera_sends_what_it_is_given(backend: type[FileBackend], tmp_path: Path) -> None:
    sink = DeviceSink(SIZE, 30.0, str(tmp_path / "device"))
    image = np.random.default_rng(0).integers(0, 256, (48, 64, 3), dtype=np.uint8)
    sink.write(image, 0, 1)
    sink.write(image[::-1], 1, 5)  # five ticks: a device shows the picture once
    sink.close()
    sent = np.frombuffer((tmp_path / "device").read_bytes(), np.uint8).reshape(-1, 48, 64, 3)
    assert len(sent) == 2 and np.array_equal(sent[0], image) and np.array_equal(sent[1], image[::-1])
    assert sink.name == f"the virtual camera {tmp_path / 'device'}" and (backend.opened, backend.closed) == (1, 1)


def test_a_device_that_goes_away_is_opened_anew(backend: type[FileBackend], tmp_path: Path) -> None:
    now_s = 0.0
    keeper = sink_opener(SinkSpec("device", device=str(tmp_path / "device")), SIZE, 30.0, lambda: now_s)()
    image = np.zeros((48, 64, 3), np.uint8)
    assert keeper.write(image, 0, 1)
    backend.unplugged = True
    assert not keeper.write(image, 1, 1) and keeper.losses == 1
    assert "takes no more pictures (device is gone)" in str(keeper.error)
    backend.unplugged = False
    assert not keeper.write(image, 2, 1)  # not at once
    now_s = 0.5
    assert keeper.write(image, 3, 1) and keeper.error is None and backend.opened == 2
    keeper.close()
    assert backend.closed == 2


def test_no_device_names_the_cure(backend: type[FileBackend]) -> None:
    with pytest.raises(MediaError) as caught:
        DeviceSink(SIZE, 30.0)
    message = str(caught.value)
    assert "no device found" in message and "\n" not in message
    if sys.platform == "linux":
        assert "sudo modprobe" in message


def test_the_missing_package_names_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pyvirtualcam", None)
    with pytest.raises(ConfigError, match=r"pip install 'idm-rt\[camera\]'"):
        DeviceSink(SIZE, 30.0)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("device", SinkSpec("device")),
        ("device:OBS Virtual Camera", SinkSpec("device", device="OBS Virtual Camera")),
        ("/dev/video10", SinkSpec("device", device="/dev/video10")),
        ("none", SinkSpec("none")),
        ("-", SinkSpec("pipe")),
    ],
)
def test_outputs_by_name(text: str, expected: SinkSpec) -> None:
    assert parse_sink(text) == expected


def test_outputs_that_cannot_be_are_refused_before_any_work(tmp_path: Path) -> None:
    (tmp_path / "there.mp4").touch()
    for text, words in (
        (tmp_path / "call.txt", "no kind of file"),
        (tmp_path / "nowhere" / "call.mp4", "does not exist"),
        (tmp_path / "there.mp4", "exists already; add --overwrite"),
        (tmp_path, "no kind of file"),
    ):
        with pytest.raises(MediaError, match=words):
            parse_sink(str(text))
    assert parse_sink(str(tmp_path / "there.mp4"), overwrite=True).kind == "file"
    with pytest.raises(MediaError, match="the input itself"):
        parse_sink(str(tmp_path / "there.mp4"), overwrite=True, source=tmp_path / "there.mp4")
