"""Audio that waits for its video: how long, how smoothly, and flash and beep over real RTP."""

from __future__ import annotations

import asyncio
import time

import numpy as np
import pytest
from aiortc.mediastreams import MediaStreamError
from rtc_fakes import AudioSource, VideoSource, Whitener, drain, middle, new_peer, read, use_loopback

from idm_rt.webrtc import DelayedAudioTrack, enhance_track, use_marker_bit
from idm_rt.webrtc.arrivals import StampedTrack
from idm_rt.webrtc.audio_track import approach

SKEW_S = 0.045  # what the eye forgives: EBU R37 allows +40/-60 ms, ITU-R BT.1359 puts the threshold at +45/-125 ms


def held_s(source: AudioSource, count: int, wait_s: float) -> list[float]:
    async def run() -> list[float]:
        track = DelayedAudioTrack(source, lambda: wait_s, lead_s=0.0)
        times = []
        for _ in range(count):
            frame = await track.recv()
            times.append(time.monotonic() - source.sent_at_s[frame.pts // 960])
        track.stop()
        return times

    return asyncio.run(run())


def test_frames_are_held_as_long_as_the_video_takes() -> None:
    times = held_s(AudioSource(), 30, 0.2)
    assert min(times) >= 0.199 and sorted(times)[15] < 0.25


def test_without_video_delay_nothing_is_held() -> None:
    assert sorted(held_s(AudioSource(), 20, 0.0))[10] < 0.02


def test_audio_that_comes_late_anyhow_waits_less() -> None:
    async def run() -> None:
        track = DelayedAudioTrack(AudioSource(), lambda: 0.07)
        await read(track, 2)
        assert track.delay_s == pytest.approx(0.023, abs=1e-6)
        track.stop()

    asyncio.run(run())


def test_frames_are_unchanged_and_none_is_lost() -> None:
    async def run() -> None:
        source = AudioSource(lambda index: np.full(960, index, np.int16), count=40)
        track = DelayedAudioTrack(source, lambda: 0.1, lead_s=0.0)
        frames = await read(track, 40)
        assert [frame.pts for frame in frames] == [index * 960 for index in range(40)]
        assert [int(frame.to_ndarray()[0, 0]) for frame in frames] == list(range(40))
        with pytest.raises(MediaStreamError):
            await track.recv()
        assert track.readyState == "ended"

    asyncio.run(run())


def test_a_delay_that_changes_is_followed_slowly() -> None:
    """Two hundredths of a second per second: the viewer's player stretches sound by that much unheard."""
    assert approach(0.0, 0.1, 0.02) == pytest.approx(0.02)
    assert approach(0.1, 0.0, 0.02) == pytest.approx(0.08)
    assert approach(0.1, 0.11, 0.02) == 0.11

    async def run() -> None:
        wanted = [0.0]
        track = DelayedAudioTrack(AudioSource(), lambda: wanted[0], lead_s=0.0)
        await read(track, 5)
        wanted[0] = 10.0  # a fault: no video for ten seconds
        before, start_s = track.delay_s, time.monotonic()
        await read(track, 25)
        assert 0.0 < track.delay_s - before <= 0.02 * (time.monotonic() - start_s) + 1e-3
        track.stop()

    asyncio.run(run())


def test_what_nobody_reads_does_not_pile_up() -> None:
    class Flood(AudioSource):
        async def recv(self):
            await asyncio.sleep(0)
            self._start_s = time.monotonic() - 1e6
            return await super().recv()

    async def run() -> None:
        track = DelayedAudioTrack(Flood(count=500), lambda: 0.0, lead_s=0.0)
        await track.recv()
        await asyncio.sleep(1.0)
        assert track.dropped >= 300
        assert await asyncio.wait_for(drain(track), 10) <= 100

    asyncio.run(run())


def test_only_audio_is_taken_and_stop_stops_the_source() -> None:
    async def run() -> None:
        with pytest.raises(ValueError, match="expected an audio track, found a track of kind 'video'"):
            DelayedAudioTrack(VideoSource(), lambda: 0.0)
        source = AudioSource()
        track = DelayedAudioTrack(source, lambda: 0.0)
        await track.recv()
        track.stop()
        assert source.readyState == "ended"

    asyncio.run(run())


@pytest.mark.parametrize("work_s", [0.0, 0.03])
def test_flash_and_beep_stay_together(monkeypatch: pytest.MonkeyPatch, work_s: float, record_property) -> None:
    """A flash and a beep each second go through a peer that restores the video.

    A viewer plays together what was sent together. So the skew is the time between the moments at which the flash and
    the beep leave the relaying peer.
    """
    use_loopback(monkeypatch)
    bright, dark = np.full((240, 320, 3), 220, np.uint8), np.full((240, 320, 3), 30, np.uint8)
    tone = (8000 * np.sin(np.arange(960) * 2 * np.pi / 48)).astype(np.int16)
    silence = np.zeros(960, np.int16)

    async def run() -> list[float]:
        caller, callee = new_peer(), new_peer()
        tracks = {}
        callee.on("track", lambda track: tracks.__setitem__(track.kind, track))
        # 30 pictures and 50 sounds a second: flash and beep begin with each second's first
        caller.addTrack(VideoSource(lambda index: bright if index % 30 < 5 else dark))
        caller.addTrack(AudioSource(lambda index: tone if index % 50 < 8 else silence))
        await caller.setLocalDescription(await caller.createOffer())
        await callee.setRemoteDescription(caller.localDescription)
        arrivals = {each.kind: use_marker_bit(each.receiver) for each in callee.getTransceivers()}
        await callee.setLocalDescription(await callee.createAnswer())
        await caller.setRemoteDescription(callee.localDescription)
        video = enhance_track(StampedTrack(tracks["video"], arrivals["video"].of), lambda: Passing(work_s))
        audio = DelayedAudioTrack(tracks["audio"], lambda: video.delay_s, arrivals["audio"].of)
        flashes, beeps = [], []
        readers = [
            asyncio.ensure_future(edges(video, lambda frame: middle(frame) > 120, flashes)),
            asyncio.ensure_future(edges(audio, lambda frame: np.abs(frame.to_ndarray()).max() > 2000, beeps)),
        ]
        await asyncio.sleep(7.0)
        for reader in readers:
            reader.cancel()
        await asyncio.gather(caller.close(), callee.close())
        video.stop()
        audio.stop()
        return [min((beep - flash for beep in beeps), key=abs) for flash in flashes]

    skews = sorted(asyncio.run(run())[2:])  # the first seconds measure the delay
    assert len(skews) >= 3
    record_property("beep after flash ms, median", round(1000 * skews[len(skews) // 2], 1))
    assert abs(skews[len(skews) // 2]) < SKEW_S, skews


class Passing(Whitener):
    """Takes its time and shows the picture as it is."""

    def process_frame(self, frame, timestamp_ms, *, steps=None, strength=None, carry=False):
        time.sleep(self.work_s)
        return frame


async def edges(track, is_on, times: list[float]) -> None:
    """Note when frames for which this holds begin."""
    was_on = True
    while True:
        frame = await track.recv()
        if (on := bool(is_on(frame))) and not was_on:
            times.append(time.monotonic())
        was_on = on
