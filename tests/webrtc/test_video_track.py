"""The enhanced video track: times, pixels, faults, ends; alone and over real RTP on the loopback interface."""

from __future__ import annotations

import asyncio
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import numpy as np
import pytest
from aiortc.contrib.media import MediaRelay
from aiortc.mediastreams import MediaStreamError
from rtc_fakes import (
    VIDEO_CLOCK,
    AudioSource,
    VideoSource,
    Whitener,
    connect,
    drain,
    grey_picture,
    is_white,
    middle,
    read,
    read_until,
    two_peers,
    use_loopback,
    video_frame,
    wait_until,
)

import idm_rt
from idm_rt.config import EnhancerConfig
from idm_rt.media.video_frame import plane_views
from idm_rt.webrtc import EnhancedVideoTrack, enhance_track
from idm_rt.webrtc.conversion import restored_video, to_rgb
from idm_rt.worker import LiveControls, WorkerOptions

QUICK = WorkerOptions(hang_after_s=0.4, replace_after_s=0.3, retry_after_s=0.05)


def test_frames_keep_their_times_and_are_restored_off_the_loop() -> None:
    whitener = Whitener()

    async def run() -> None:
        source = VideoSource()
        track = enhance_track(source, lambda: whitener)
        assert track.kind == "video"
        await read_until(track, is_white)
        frames = await read(track, 10)
        assert [frame.pts % 3000 for frame in frames] == [0] * 10
        assert all(later.pts > earlier.pts for earlier, later in zip(frames, frames[1:], strict=False))
        assert {frame.time_base for frame in frames} == {VIDEO_CLOCK}
        assert {(frame.width, frame.height, frame.format.name) for frame in frames} == {(320, 240, "yuv420p")}
        assert 0.0 < track.delay_s < 1.0
        track.stop()
        assert source.readyState == "ended"
        with pytest.raises(MediaStreamError):
            await track.recv()

    asyncio.run(run())
    assert whitener.closed.wait(10)
    assert whitener.threads and all(name.startswith("idm-rt engine") for name in whitener.threads)


def test_pixels_outside_the_change_stay_as_they_were_decoded() -> None:
    before = grey_picture()
    after = before.copy()
    after[60:180, 80:240] = 230
    source = video_frame(before, 3000)
    made = restored_video(source, before, after)
    assert (made.pts, made.time_base) == (3000, VIDEO_CLOCK)
    for plane, original in zip(plane_views(made), plane_views(source), strict=True):
        scale = 240 // plane.shape[0]
        outside = np.ones(plane.shape, bool)
        outside[56 // scale : 184 // scale, 76 // scale : 244 // scale] = False
        assert np.array_equal(plane[outside], original[outside])
        if scale == 1:
            assert np.all(plane[70:170, 90:230] > original[70:170, 90:230])


@pytest.mark.parametrize("pixel_format", ["rgb24", "yuv444p", "nv12", "gray", "yuvj420p"])
def test_any_pixel_format_and_odd_sizes(pixel_format: str) -> None:
    before = grey_picture(321, 243)
    source = video_frame(before, 0, pixel_format)
    seen = source.to_ndarray(format="rgb24")
    after = seen.copy()
    after[60:180, 80:240] = 230
    made = restored_video(source, seen, after)
    assert (made.width, made.height, made.format.name) == (321, 243, "yuv420p")
    shown = made.to_ndarray(format="rgb24").astype(int)
    assert abs(shown[80:160, 100:220].mean() - 230) < 4
    assert abs(shown[:50].mean() - seen[:50].mean()) < 3


def test_the_left_part_may_show_the_original() -> None:
    before = grey_picture()
    source = video_frame(before, 0)
    after = np.full_like(before, 230)
    made = restored_video(source, before, after, split=0.5)
    luma, original = plane_views(made)[0], plane_views(source)[0]
    assert np.array_equal(luma[:, :160], original[:, :160])
    assert np.all(luma[:, 162:] > 200)
    whole = restored_video(source, before, after, split=1.0)
    assert all(np.array_equal(a, b) for a, b in zip(plane_views(whole), plane_views(source), strict=True))


def test_two_threads_may_convert_the_same_frame() -> None:
    """A frame whose deadline came is read by its consumer while the engine still converts it."""
    frame = video_frame(grey_picture(), 0)
    with ThreadPoolExecutor(3) as pool:
        own = [pool.submit(lambda: [to_rgb(frame) for _ in range(300)]) for _ in range(2)]
        consumers = [pool.submit(lambda: [frame.to_ndarray(format="rgb24") for _ in range(300)])]
        for done in own + consumers:
            assert len(done.result(timeout=60)) == 300


def test_controls_and_split_reach_the_running_stream() -> None:
    async def run() -> None:
        whitener = Whitener()
        track = EnhancedVideoTrack(VideoSource(), lambda: whitener)
        await read_until(track, is_white)
        track.set_controls(LiveControls(steps=1, strength=0.25))
        await wait_until_read(track, lambda: whitener.calls[-1] == (1, 0.25))
        track.split = 1.0
        await read_until(track, lambda frame: not is_white(frame))
        track.split = 0.0
        track.set_controls(replace(track.controls, enabled=False))
        frame = await read_until(track, lambda frame: not is_white(frame))
        assert middle(frame) < 120 and track.stats().bypassed["off"] > 0
        with pytest.raises(ValueError, match=r"split is 1\.5, expected 0\.\.1"):
            track.split = 1.5
        track.stop()

    asyncio.run(run())


async def wait_until_read(track: EnhancedVideoTrack, holds) -> None:
    async with asyncio.timeout(30):
        while not holds():
            await track.recv()


def test_it_ends_with_its_source() -> None:
    async def run() -> None:
        ended = []
        track = enhance_track(VideoSource(count=10, fps=100), Whitener)
        track.on("ended", lambda: ended.append(True))
        assert 1 <= await asyncio.wait_for(drain(track), 20) <= 10
        assert track.readyState == "ended" and ended == [True]
        await wait_until(lambda: not engine_threads())

    asyncio.run(run())


def engine_threads() -> list[str]:
    return [thread.name for thread in threading.enumerate() if thread.name.startswith("idm-rt")]


def test_only_decoded_video_is_taken() -> None:
    async def run() -> None:
        with pytest.raises(ValueError, match="expected a video track, found a track of kind 'audio'"):
            enhance_track(AudioSource())

        class Confused(VideoSource):
            async def recv(self):
                return await AudioSource().recv()

        with pytest.raises(MediaStreamError):
            await asyncio.wait_for(enhance_track(Confused(), Whitener).recv(), 20)

    asyncio.run(run())


def test_a_media_relay_serves_several_readers() -> None:
    async def run() -> None:
        relay = MediaRelay()
        track = enhance_track(VideoSource(), Whitener)
        readers = [relay.subscribe(track, buffered=False) for _ in range(3)]
        frames = await asyncio.gather(*(read_until(reader, is_white) for reader in readers))
        assert {frame.pts for frame in frames} == {frames[0].pts}
        readers[0].stop()
        assert track.readyState == "live" and is_white((await read(readers[1], 1))[0])
        track.stop()
        await asyncio.gather(*(asyncio.wait_for(drain(reader), 20) for reader in readers[1:]))

    asyncio.run(run())


def test_a_slow_enhancer_blocks_neither_the_loop_nor_the_picture() -> None:
    async def run() -> None:
        track = enhance_track(VideoSource(), lambda: Whitener(work_s=0.5))
        gaps, last = [], time.monotonic()
        reader = asyncio.ensure_future(read(track, 60))
        while not reader.done():
            await asyncio.sleep(0.005)
            gaps.append(time.monotonic() - last)
            last = time.monotonic()
        frames = await reader
        assert sorted(gaps)[len(gaps) * 99 // 100] < 0.25  # half a second where the work is done on the loop
        assert frames[-1].pts - frames[0].pts <= 3000 * 150
        assert track.stats().age_ms["p95_ms"] < 500
        track.stop()

    asyncio.run(run())


@pytest.mark.parametrize("fault", ["raises", "hangs", "does not open"])
def test_any_fault_shows_the_original_and_is_recovered_from(fault: str) -> None:
    made: list[Whitener] = []

    def open_enhancer() -> Whitener:
        if fault == "does not open" and len(made) == 1:
            made.append(Whitener())
            raise OSError("no such engine")
        made.append(Whitener())
        return made[-1]

    async def run() -> None:
        track = enhance_track(VideoSource(), open_enhancer, options=QUICK)
        await read_until(track, is_white)
        began = time.monotonic()
        if fault == "hangs":
            made[0].hang = True
        else:
            made[0].error = RuntimeError("the engine died")
        frame = await read_until(track, lambda frame: not is_white(frame), 10)
        assert middle(frame) < 120 and time.monotonic() - began < 3.0
        await read_until(track, is_white, 20)  # another engine was opened meanwhile
        assert len(made) > 1
        made[0].let_go.set()
        track.stop()

    asyncio.run(run())


def test_over_rtp_there_and_back(monkeypatch: pytest.MonkeyPatch) -> None:
    """A caller's camera goes to a peer that adds the one line, and comes back restored."""
    use_loopback(monkeypatch)

    async def run() -> None:
        async with two_peers() as (caller, callee):
            back = asyncio.get_running_loop().create_future()
            callee.on("track", lambda track: callee.addTrack(enhance_track(track, Whitener)) and None)
            caller.on("track", back.set_result)
            caller.addTrack(VideoSource())
            await connect(caller, callee)
            track = await asyncio.wait_for(back, 10)
            await read_until(track, is_white)
            frames = await read(track, 15)
            assert all(later.pts > earlier.pts for earlier, later in zip(frames, frames[1:], strict=False))
        await wait_until(lambda: not engine_threads())

    asyncio.run(run())


@pytest.mark.slow
def test_the_real_enhancer_over_rtp(monkeypatch: pytest.MonkeyPatch, tmp_path) -> None:
    """The sample call and the shipped model, at a frame rate that even a busy machine keeps."""
    from idm_rt.model_files import find_fault
    from idm_rt.model_store import FACE_LANDMARKER, cache_dir

    if find_fault(cache_dir() / FACE_LANDMARKER.record.path, FACE_LANDMARKER.record) is not None:
        pytest.skip("face_landmarker.task is not in the cache: idm-rt models fetch")
    from sample_frames import sample_pictures

    use_loopback(monkeypatch)
    pictures = sample_pictures(30)

    async def run() -> None:
        async with two_peers() as (caller, callee):
            tracks: list[EnhancedVideoTrack] = []
            back = asyncio.get_running_loop().create_future()

            def on_track(track) -> None:
                tracks.append(enhance_track(track, EnhancerConfig(steps=1)))
                callee.addTrack(tracks[0])

            callee.on("track", on_track)
            caller.on("track", back.set_result)
            caller.addTrack(VideoSource(lambda index: pictures[index % len(pictures)], fps=2))
            await connect(caller, callee)
            reader = asyncio.ensure_future(drain(await asyncio.wait_for(back, 10)))
            stats = tracks[0].stats
            await wait_until(lambda: stats().frames_out - sum(stats().bypassed.values()) >= 5, 120)
            assert stats().engine == "running" and not stats().faults
            assert stats().stages_ms["restore"]["count"] >= 1  # faces were found and restored
            tracks[0].stop()
            reader.cancel()

    asyncio.run(run())


def test_the_public_names_are_lazy() -> None:
    assert idm_rt.enhance_track is enhance_track and idm_rt.EnhancedVideoTrack is EnhancedVideoTrack
