"""The benchmark's arithmetic on scripted clocks, and the frames it makes."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from idm_rt.bench import BenchOptions, run_benchmark, summarize_memory, summarize_times
from idm_rt.bench_frames import ClipFrames, place, tile_boxes
from idm_rt.config import EnhancerConfig
from idm_rt.enhancer import Enhancer
from idm_rt.errors import ConfigError, MediaError
from idm_rt.sample_clip import sample_clip
from idm_rt.timing import StageTimer


def test_times_from_scripted_durations() -> None:
    timer = StageTimer()
    for track, restore, frame in ((4.0, 10.0, 16.0), (6.0, 10.0, 24.0)):
        timer.add("track", track)
        timer.add("restore", restore)
        timer.add("frame", frame)
    times = summarize_times(timer)
    assert times["fps"] == 50.0  # two frames in 40 ms of work
    assert times["outside_networks_ratio"] == 0.25  # 10 of 40 ms
    assert times["frame_p50_ms"] == 20.0 and times["frame_p95_ms"] == pytest.approx(23.6)


def test_nothing_measured_is_all_zero() -> None:
    times = summarize_times(StageTimer())
    assert times["fps"] == times["frame_p95_ms"] == times["outside_networks_ratio"] == 0.0


def test_the_slope_of_the_memory_leaves_the_start_out() -> None:
    settled = [(i, 300.0 + (0.01 * i if i >= 500 else 0.1 * i)) for i in range(0, 1000, 10)]
    assert summarize_memory(settled)["rss_slope_mb_per_1000_frames"] == pytest.approx(10.0)
    assert summarize_memory(settled[:20])["rss_slope_mb_per_1000_frames"] is None
    assert summarize_memory([(0, 1e6)])["rss_peak_mb"] == 1e6


def test_tiles_share_the_frame() -> None:
    assert tile_boxes((640, 480), 1) == [(0, 0, 640, 480)]
    assert tile_boxes((1280, 720), 2) == [(0, 0, 640, 720), (640, 0, 1280, 720)]
    boxes = tile_boxes((641, 481), 5)
    covered = np.zeros((481, 641), int)
    for x0, y0, x1, y1 in boxes:
        covered[y0:y1, x0:x1] += 1
    assert len(boxes) == 5 and covered.max() == 1
    with pytest.raises(ConfigError, match="no room for 32 faces"):
        tile_boxes((64, 64), 32)


def test_a_clip_is_placed_never_enlarged() -> None:
    picture = np.random.default_rng(0).integers(0, 256, (40, 60, 3), dtype=np.uint8)
    canvas = place(picture, (100, 80), 1.0)
    assert canvas.shape == (80, 100, 3) and np.array_equal(canvas[20:60, 20:80], picture)
    assert np.array_equal(canvas[:20, 20:80], np.repeat(picture[:1], 20, axis=0))
    assert place(picture, (30, 80), 0.5).shape == (80, 30, 3)


def test_the_clip_is_played_in_a_loop() -> None:
    with ClipFrames(sample_clip(), (800, 600)) as frames:
        taken = list(frames.take(102))
    assert len(taken) == 102 and taken[0].shape == (600, 800, 3) and frames.interval_ms == 40.0
    assert np.array_equal(taken[100], taken[0]) and not np.array_equal(taken[50], taken[0])
    with pytest.raises(MediaError, match="does not exist"), ClipFrames(Path("no.mp4")):
        pass


class _Tracker:
    """Finds nobody."""

    backend, backend_reason = "scripted", "for the test"

    def __init__(self) -> None:
        self.seen: list[float] = []

    def update(self, image: np.ndarray, timestamp_ms: float) -> object:
        from idm_rt.tracking import TrackingResult

        self.seen.append(timestamp_ms)
        return TrackingResult([], False)

    def reset(self) -> None:
        pass

    def close(self) -> None:
        pass


def test_warm_up_is_not_measured(tiny_folder: Path) -> None:
    """A clock that advances 1 ms at each reading: every duration is a count of readings."""
    ticks = iter(np.arange(0, 1000, 0.001))
    tracker = _Tracker()

    def opened(config: EnhancerConfig, timer: StageTimer) -> Enhancer:
        return Enhancer(config, timer=timer, make_tracker=lambda _: tracker)

    options = BenchOptions(frames=4, warm_up=3, config=EnhancerConfig(model=str(tiny_folder)))
    row = run_benchmark(options, clock=lambda: next(ticks), rss_mb=lambda: 123.0, open_enhancer=opened)
    assert len(tracker.seen) == 7 and np.allclose(np.diff(tracker.seen), 40.0)
    assert row["seen"]["frames"] == row["stages_ms"]["frame"]["count"] == 4
    assert row["seen"]["faces_per_frame"] == 0.0
    assert row["tracker"] == {"backend": "scripted", "reason": "for the test"}
    stage = {name: values["p50_ms"] for name, values in row["stages_ms"].items()}
    assert stage.pop("frame") == pytest.approx(11.0)  # two readings of its own and two for each of five stages
    assert set(stage) == {"track", "crop", "restore", "blend", "composite"}
    assert all(value == pytest.approx(1.0) for value in stage.values())
    assert row["outside_networks_ratio"] == pytest.approx(9 / 11, abs=1e-3)


def test_options_that_measure_nothing() -> None:
    with pytest.raises(ConfigError, match="expected frames and faces from 1"):
        BenchOptions(frames=0)
