"""aiortc's encoders with their limits lifted: rates, restarts, pts, presets, and the hint for Chromium."""

from __future__ import annotations

import asyncio
import time

import aiortc.codecs
import numpy as np
import pytest
from aiortc import RTCSessionDescription
from aiortc.codecs import get_encoder, h264, vpx
from aiortc.codecs.h264 import H264Decoder
from aiortc.codecs.vpx import Vp8Decoder
from aiortc.jitterbuffer import JitterFrame
from hypothesis import given
from hypothesis import strategies as st
from rtc_fakes import VIDEO_CLOCK, VideoSource, new_peer, use_loopback, video_frame

from idm_rt.errors import ConfigError
from idm_rt.webrtc import CodecOptions, apply_codec_options, with_start_bitrate
from idm_rt.webrtc.codecs import TunedH264Encoder, TunedVp8Encoder, steady_rate

BOTH = pytest.mark.parametrize(
    ("encoder_type", "decoder_type", "depayload"),
    [(TunedVp8Encoder, Vp8Decoder, vpx.vp8_depayload), (TunedH264Encoder, H264Decoder, h264.h264_depayload)],
    ids=["VP8", "H.264"],
)


@pytest.fixture(autouse=True)
def as_before():
    """The options are the whole process's."""
    saved = [
        (module, name, getattr(module, name)) for module in (vpx, h264) for name in vars(module) if "BITRATE" in name
    ]
    saved += [(aiortc.codecs, name, getattr(aiortc.codecs, name)) for name in ("Vp8Encoder", "H264Encoder")]
    yield
    apply_codec_options()
    for module, name, value in saved:
        setattr(module, name, value)


def noise(index: int, size: tuple[int, int] = (640, 480)) -> np.ndarray:
    """Moving detail that needs more than any rate we allow."""
    return np.random.default_rng(index).integers(90, 140, (size[1], size[0], 3), np.uint8)


def coded_bytes(encoder, frames: int) -> int:
    made = 0
    for index in range(frames):
        payloads, _ = encoder.encode(video_frame(noise(index), index * 3000))
        made += sum(map(len, payloads))
    return made


@BOTH
def test_the_caps_are_lifted(encoder_type, decoder_type, depayload) -> None:
    apply_codec_options(CodecOptions(max_bitrate=8_000_000))
    fast, slow = encoder_type(), encoder_type()
    fast.target_bitrate, slow.target_bitrate = 100_000_000, 500_000
    assert 6_000_000 < fast.target_bitrate <= 8_000_000
    assert coded_bytes(fast, 20) > 2 * coded_bytes(slow, 20)


@BOTH
def test_what_is_encoded_decodes_with_its_times(encoder_type, decoder_type, depayload) -> None:
    apply_codec_options()
    encoder, decoder = encoder_type(), decoder_type()
    picture = np.full((240, 320, 3), 90, np.uint8)
    picture[60:180, 80:240] = 220
    for index in range(10):
        frame = video_frame(picture, 1000 + index * 3001)
        payloads, timestamp = encoder.encode(frame, force_keyframe=index == 0)
        assert timestamp == 1000 + index * 3001  # not rounded to 30 frames per second
        assert (frame.pts, frame.time_base) == (timestamp, VIDEO_CLOCK)  # viewers share the frame
        (decoded,) = decoder.decode(JitterFrame(b"".join(map(depayload, payloads)), timestamp))
        assert decoded.pts == timestamp
    shown = decoded.to_ndarray(format="rgb24").astype(int)
    assert abs(shown[80:160, 100:220].mean() - 220) < 6 and abs(shown[:40].mean() - 90) < 6


@BOTH
def test_an_estimate_that_wanders_restarts_nothing(encoder_type, decoder_type, depayload) -> None:
    apply_codec_options()
    encoder, contexts = encoder_type(), set()
    for index in range(30):
        encoder.target_bitrate = 2_000_000 + (index % 7) * 50_000  # within 15 %: aiortc restarts at 10 %
        encoder.encode(video_frame(noise(index, (160, 120)), index * 3000))
        contexts.add(id(encoder.codec))
    assert len(contexts) == 1
    encoder.target_bitrate = 600_000
    encoder.encode(video_frame(noise(31, (160, 120)), 93000))
    assert id(encoder.codec) not in contexts


@BOTH
def test_a_new_size_starts_anew(encoder_type, decoder_type, depayload) -> None:
    encoder = encoder_type()
    for size in ((320, 240), (1920, 1080), (160, 120)):
        payloads, _ = encoder.encode(video_frame(noise(0, size), 0))
        assert payloads and (encoder.codec.width, encoder.codec.height) == size


@given(st.integers(1, 100_000_000))
def test_steady_rates_are_a_ladder_below(bitrate: int) -> None:
    steady = steady_rate(bitrate)
    assert bitrate / 1.2501 - 1 <= steady <= bitrate + 1
    assert steady_rate(steady) in (steady, steady_rate(steady - 1))


def test_a_faster_preset_is_faster() -> None:
    def seconds(preset: str) -> float:
        apply_codec_options(CodecOptions(x264_preset=preset))
        encoder = TunedH264Encoder()
        frames = [video_frame(noise(index), index * 3000) for index in range(15)]
        start_s = time.process_time()
        for frame in frames:
            encoder.encode(frame)
        return time.process_time() - start_s

    assert min(seconds("ultrafast") for _ in range(2)) < min(seconds("medium") for _ in range(2))


def test_aiortc_makes_our_encoders_and_reports_each_frame() -> None:
    seen = []
    apply_codec_options(CodecOptions(start_bitrate=1_000_000), seen.append)
    from aiortc.codecs import CODECS

    made = [get_encoder(codec) for codec in CODECS["video"] if not codec.name.startswith("rtx")]
    assert {type(encoder) for encoder in made} == {TunedVp8Encoder, TunedH264Encoder}
    frame = video_frame(noise(0, (160, 120)), 0)
    for encoder in made:
        assert encoder.target_bitrate == steady_rate(1_000_000)
        encoder.encode(frame)
    assert seen == [frame] * len(made)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"min_bitrate": 0}, "bit rates are 0, 1500000, 6000000; choose 0 < min_bitrate"),
        ({"max_bitrate": 1000}, "choose 0 < min_bitrate <= start_bitrate <= max_bitrate"),
        ({"x264_preset": "placebo"}, "x264_preset is 'placebo'; choose one of ultrafast"),
        ({"vp8_cpu_used": 3}, "vp8_cpu_used is 3; choose -16 to -1"),
        ({"vp8_noise_sensitivity": 7}, "vp8_noise_sensitivity is 7; choose 0 to 6"),
    ],
)
def test_options_are_checked(options, message) -> None:
    with pytest.raises(ConfigError, match=message):
        CodecOptions(**options)


def test_the_answer_asks_chromium_for_the_full_size(monkeypatch: pytest.MonkeyPatch) -> None:
    use_loopback(monkeypatch)

    async def run() -> None:
        peer, other = new_peer(), new_peer()
        peer.addTrack(VideoSource())
        await peer.setLocalDescription(await peer.createOffer())
        sdp = with_start_bitrate(peer.localDescription.sdp, CodecOptions())
        hint = "x-google-min-bitrate=300;x-google-start-bitrate=1500;x-google-max-bitrate=6000"
        assert f"a=fmtp:97 {hint}\r\n" in sdp and sdp.count(hint) == 3  # VP8 and both profiles of H.264
        assert not any(hint in line for line in sdp.splitlines() if "apt=" in line)
        assert with_start_bitrate(sdp, CodecOptions()) == sdp
        await other.setRemoteDescription(RTCSessionDescription(sdp, "offer"))  # still an SDP
        await asyncio.gather(peer.close(), other.close())

    asyncio.run(run())
