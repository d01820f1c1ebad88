"""Sources that need no camera, with a clock that is turned; and what the user may name."""

from __future__ import annotations

import threading
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from clocks import TurnedClock

from idm_rt.errors import ConfigError, MediaError
from idm_rt.sample_clip import sample_clip
from idm_rt.virtual_camera.file_source import FileSource, PatternSource
from idm_rt.virtual_camera.sources import SourceSpec, natural_size, opener_of, parse_source


def turning(clock: TurnedClock) -> Callable[[float], bool]:
    """Waits by turning the clock."""

    def wait(seconds: float) -> bool:
        clock.advance(seconds)
        return False

    return wait


def test_a_file_is_played_in_real_time_over_and_over() -> None:
    clock = TurnedClock(0.0)
    source = FileSource(sample_clip(), loop=True, clock=clock, wait=turning(clock))
    assert source.interval_s == pytest.approx(1 / 25, rel=0.3)
    times = []
    for _ in range(250):  # two rounds and a half of the 100 frames
        assert source.read() is not None
        times.append(clock())
    source.close()
    gaps = np.diff(times)
    assert gaps.min() > 0.5 * source.interval_s and gaps.max() < 1.5 * source.interval_s  # no hole where it begins anew
    assert times[-1] == pytest.approx(249 * source.interval_s, rel=0.02)


def test_played_once_it_ends_with_its_last_frames_time() -> None:
    clock = TurnedClock(0.0)
    source = FileSource(sample_clip(), loop=False, clock=clock, wait=turning(clock))
    count = 0
    while source.read() is not None:
        count += 1
    source.close()
    assert count == 100 and clock() == pytest.approx(100 * source.interval_s, rel=0.02)


def test_a_reader_that_is_too_slow_is_shown_what_is_due() -> None:
    clock = TurnedClock(0.0)
    source = FileSource(sample_clip(), loop=True, clock=clock, wait=turning(clock))
    count = 0
    while clock() < 8.0:
        source.read()
        clock.advance(0.2)  # five times too slow
        count += 1
    source.close()
    assert count <= 8.0 / 0.2 + 1  # pictures were left out: the file never fell behind


def test_waiting_ends_when_it_is_told_to() -> None:
    clock = TurnedClock(0.0)
    source = FileSource(sample_clip(), loop=True, clock=clock, wait=lambda seconds: True)
    assert source.read() is not None  # due at once
    assert source.read() is None
    source.close()


def test_the_pattern_moves_and_has_a_right_way_round() -> None:
    clock, stop = TurnedClock(0.0), threading.Event()
    source = PatternSource((160, 90), 30.0, clock=clock, stop=stop)
    pictures = []
    for _ in range(10):
        pictures.append(source.read())
        clock.advance(1 / 30)
    assert all(not np.array_equal(a, b) for a, b in zip(pictures, pictures[1:], strict=False))
    first = pictures[5]
    assert first is not None and first.shape == (90, 160, 3)
    assert first[2, 12].tolist() == [220, 40, 40] and first[-3, -3].tolist() != [220, 40, 40]
    clock.advance(10.0)
    later = source.read()
    assert later is not None and clock() == pytest.approx(10.0 + 10 / 30)  # no catching up
    stop.set()
    assert source.read() is None


def test_what_the_user_may_name(tmp_path: Path) -> None:
    clip = sample_clip()

    def parsed(text: str) -> SourceSpec:
        return parse_source(text, loop=True, sample=lambda: clip)

    assert parsed("camera") == SourceSpec("camera") and parsed("camera:BRIO") == SourceSpec("camera", "BRIO")
    assert parsed("camera:2") == SourceSpec("camera", "2") and parsed("/dev/video2") == SourceSpec(
        "camera", "/dev/video2"
    )
    assert parsed("screen::1") == SourceSpec("screen", ":1") and parsed("pattern") == SourceSpec("pattern")
    assert parsed("test") == SourceSpec("file", path=clip) == parsed(str(clip))
    for text in ("camera:", "nothing.mp4", "tset"):
        with pytest.raises(ConfigError, match="no file that exists"):
            parsed(text)
    (tmp_path / "empty.mp4").touch()
    with pytest.raises(MediaError, match="is empty"):
        parsed(str(tmp_path / "empty.mp4"))
    (tmp_path / "text.mp4").write_text("no video\n" * 100)
    with pytest.raises(MediaError):
        natural_size(parsed(str(tmp_path / "text.mp4")))
    assert natural_size(parsed("test")) == (640, 480) and natural_size(parsed("camera")) is None


def test_an_opener_opens_what_was_named() -> None:
    source = opener_of(SourceSpec("pattern"), (64, 48), 25.0)(threading.Event())
    image = source.read()
    assert image is not None and image.shape == (48, 64, 3) and source.interval_s == 1 / 25
    source.close()
