"""aiortc's video encoders with their limits lifted.

aiortc (1.16) caps VP8 at 1.5 Mb/s and H.264 at 3 Mb/s, starts both at low rates, fixes x264 to its medium preset and
VP8 to heavy denoising, and starts the encoder anew, with a key frame, whenever the receiver's estimate moves by a
tenth. None of it can be set: the numbers are module globals, the classes are looked up in ``aiortc.codecs``. This is
the one place that changes them, for the whole process.
"""

from __future__ import annotations

import logging
import math
import multiprocessing
import re
from collections.abc import Callable
from dataclasses import dataclass
from fractions import Fraction
from typing import ClassVar

import aiortc.codecs as aiortc_codecs
import av
from aiortc.codecs import h264, vpx
from aiortc.codecs.h264 import H264Decoder, H264Encoder
from aiortc.codecs.vpx import Vp8Decoder, Vp8Encoder
from av.frame import Frame
from av.video.codeccontext import VideoCodecContext
from av.video.frame import VideoFrame

from idm_rt.errors import ConfigError

log = logging.getLogger(__name__)

_PRESETS = ("ultrafast", "superfast", "veryfast", "faster", "fast", "medium")
_LEVEL_31_PIXELS = 1280 * 720  # H.264 level 3.1, table A-1: 3600 macroblocks
_RATE_STEP = 1.25  # target rates come in such steps, so that an estimate that wanders does not restart the encoder
_FPS = 30
_CLOCK = Fraction(1, 90_000)  # RTP's; with another one PyAV would rescale the pts of frames that viewers share


@dataclass(frozen=True, slots=True)
class CodecOptions:
    """How video is encoded. Rates in bits per second."""

    min_bitrate: int = 300_000  # however low the receiver's estimate is
    start_bitrate: int = 1_500_000  # until the receiver's first estimate
    max_bitrate: int = 6_000_000  # however high it is
    x264_preset: str = "veryfast"  # medium costs nearly twice the processor time at 640x480
    vp8_cpu_used: int = -6  # libvpx real time: -1 (best) to -16 (fastest)
    max_pixels: int = 4096 * 2304  # of a received frame; a larger one is refused before memory is taken for it
    vp8_noise_sensitivity: int = 0  # 0 to 6; aiortc's 4 smooths away what a restorer has just made clear

    def __post_init__(self) -> None:
        if not 0 < self.min_bitrate <= self.start_bitrate <= self.max_bitrate:
            found = f"{self.min_bitrate}, {self.start_bitrate}, {self.max_bitrate}"
            raise ConfigError(f"bit rates are {found}; choose 0 < min_bitrate <= start_bitrate <= max_bitrate")
        if self.x264_preset not in _PRESETS:
            raise ConfigError(f"x264_preset is {self.x264_preset!r}; choose one of {', '.join(_PRESETS)}")
        if not -16 <= self.vp8_cpu_used <= -1:
            raise ConfigError(f"vp8_cpu_used is {self.vp8_cpu_used!r}; choose -16 to -1")
        if not 0 <= self.vp8_noise_sensitivity <= 6:
            raise ConfigError(f"vp8_noise_sensitivity is {self.vp8_noise_sensitivity!r}; choose 0 to 6")


class _State:
    """What the encoders of this process obey."""

    options: ClassVar[CodecOptions] = CodecOptions()
    on_encoded: ClassVar[Callable[[VideoFrame], None] | None] = None


def apply_codec_options(
    options: CodecOptions | None = None, on_encoded: Callable[[VideoFrame], None] | None = None
) -> None:
    """Have every encoder that aiortc makes from now on obey ``options``; for the whole process, again and again.

    Args:
        options: None = the defaults.
        on_encoded: called on an encoder's thread with each frame once it is encoded; must be quick and never raise.
    """
    options = options or CodecOptions()
    _State.options, _State.on_encoded = options, on_encoded
    rates = {"MIN": options.min_bitrate, "DEFAULT": options.start_bitrate, "MAX": options.max_bitrate}
    for module in (vpx, h264):
        for name, bitrate in rates.items():
            setattr(module, f"{name}_BITRATE", bitrate)
    # get_encoder and get_decoder look these names up when the first frame comes
    aiortc_codecs.Vp8Encoder = TunedVp8Encoder  # type: ignore[misc]
    aiortc_codecs.H264Encoder = TunedH264Encoder  # type: ignore[misc]
    aiortc_codecs.Vp8Decoder = BoundedVp8Decoder  # type: ignore[misc]
    aiortc_codecs.H264Decoder = BoundedH264Decoder  # type: ignore[misc]


def steady_rate(bitrate: int) -> int:
    """The highest of a ladder of rates that is not above ``bitrate`` (bits per second)."""
    steps = math.floor(math.log(max(1, bitrate), _RATE_STEP) + 1e-9)
    return math.ceil(_RATE_STEP**steps)


def _encoded(frame: Frame) -> None:
    if _State.on_encoded is not None and isinstance(frame, VideoFrame):
        _State.on_encoded(frame)


def _fits(codec: VideoCodecContext | None, frame: Frame, bitrate: int) -> bool:
    """Whether aiortc would go on with this codec context (its own test, which we must answer alike)."""
    return (
        codec is not None
        and isinstance(frame, VideoFrame)
        and (codec.width, codec.height) == (frame.width, frame.height)
        and abs(bitrate - (codec.bit_rate or 1)) / (codec.bit_rate or 1) <= 0.1
    )


class TunedVp8Encoder(Vp8Encoder):
    """aiortc's VP8 encoder on a codec context of ours."""

    @property
    def target_bitrate(self) -> int:
        """Bits per second, on the ladder of ``steady_rate``."""
        return steady_rate(super().target_bitrate)

    @target_bitrate.setter
    def target_bitrate(self, bitrate: int) -> None:
        Vp8Encoder.target_bitrate.fset(self, bitrate)  # type: ignore[attr-defined]

    def encode(self, frame: Frame, force_keyframe: bool = False) -> tuple[list[bytes], int]:
        """Payloads and RTP timestamp of a frame."""
        if not _fits(self.codec, frame, self.target_bitrate) and isinstance(frame, VideoFrame):
            self.codec = _vp8_context(frame, self.target_bitrate, _State.options)
        made = super().encode(frame, force_keyframe)
        _encoded(frame)
        return made


class TunedH264Encoder(H264Encoder):
    """aiortc's H.264 encoder on a codec context of ours."""

    @property
    def target_bitrate(self) -> int:
        """Bits per second, on the ladder of ``steady_rate``."""
        return steady_rate(super().target_bitrate)

    @target_bitrate.setter
    def target_bitrate(self, bitrate: int) -> None:
        H264Encoder.target_bitrate.fset(self, bitrate)  # type: ignore[attr-defined]

    def encode(self, frame: Frame, force_keyframe: bool = False) -> tuple[list[bytes], int]:
        """Payloads and RTP timestamp of a frame."""
        if not _fits(self.codec, frame, self.target_bitrate) and isinstance(frame, VideoFrame):
            self.codec = _h264_context(frame, self.target_bitrate, _State.options)
        made = super().encode(frame, force_keyframe)
        _encoded(frame)
        return made


class BoundedVp8Decoder(Vp8Decoder):
    """aiortc's VP8 decoder, which a stream cannot make allocate a picture of 16383x16383."""

    def __init__(self) -> None:
        super().__init__()
        self.codec.options = {"max_pixels": str(_State.options.max_pixels)}


class BoundedH264Decoder(H264Decoder):
    """The same for H.264."""

    def __init__(self) -> None:
        super().__init__()
        self.codec.options = {"max_pixels": str(_State.options.max_pixels)}


def _vp8_context(frame: VideoFrame, bitrate: int, options: CodecOptions) -> VideoCodecContext:
    """libvpx for a call: constant rate, no look-ahead, key frames on request only."""
    codec = av.CodecContext.create("libvpx", "w")
    codec.width, codec.height, codec.pix_fmt = frame.width, frame.height, "yuv420p"
    codec.bit_rate = bitrate
    codec.time_base = _CLOCK
    codec.gop_size = 3000
    codec.qmin, codec.qmax = 2, 56
    codec.options = {
        "bufsize": str(bitrate),
        "minrate": str(bitrate),
        "maxrate": str(bitrate),
        "cpu-used": str(options.vp8_cpu_used),
        "deadline": "realtime",
        "lag-in-frames": "0",
        "noise-sensitivity": str(options.vp8_noise_sensitivity),
        "undershoot-pct": "100",
        "overshoot-pct": "15",
        "static-thresh": "1",
    }
    codec.thread_count = vpx.number_of_threads(frame.width * frame.height, multiprocessing.cpu_count())
    return codec


def _h264_context(frame: VideoFrame, bitrate: int, options: CodecOptions) -> VideoCodecContext:
    """x264 for a call: no look-ahead, no B frames, the rate held within half a second."""
    codec = av.CodecContext.create("libx264", "w")
    codec.width, codec.height, codec.pix_fmt = frame.width, frame.height, "yuv420p"
    codec.bit_rate = bitrate
    codec.framerate, codec.time_base = Fraction(_FPS, 1), _CLOCK
    codec.options = {"preset": options.x264_preset, "tune": "zerolatency"}
    codec.options |= {"maxrate": str(bitrate), "bufsize": str(bitrate // 2), "g": "3000"}
    if frame.width * frame.height <= _LEVEL_31_PIXELS:
        codec.options |= {"level": "31"}
    codec.profile = "Baseline"
    return codec


def with_start_bitrate(sdp: str, options: CodecOptions | None = None) -> str:
    """An answer that makes Chromium send the camera's full size from the start.

    Without such a hint it begins at 300 kb/s and scales a 1280x720 camera down to 640x360. The parameters are
    Chromium's own (``x-google-start-bitrate`` and so on, kb/s); other peers ignore parameters they do not know.
    """
    options = options or CodecOptions()
    hint = (
        f"x-google-min-bitrate={options.min_bitrate // 1000};x-google-start-bitrate={options.start_bitrate // 1000};"
        f"x-google-max-bitrate={options.max_bitrate // 1000}"
    )
    lines = sdp.split("\r\n")
    described = {match[1] for line in lines if (match := re.match(r"a=fmtp:(\d+) ", line))}
    made: list[str] = []
    for line in lines:
        video = re.match(r"a=rtpmap:(\d+) (VP8|H264)/90000$", line, re.IGNORECASE)
        made.append(line)
        if video and video[1] not in described:
            made.append(f"a=fmtp:{video[1]} {hint}")
    codecs = {match[1] for line in lines if (match := re.match(r"a=rtpmap:(\d+) (?:VP8|H264)/", line, re.IGNORECASE))}
    return "\r\n".join(_hinted(line, codecs, hint) for line in made)


def _hinted(line: str, codecs: set[str], hint: str) -> str:
    match = re.match(r"a=fmtp:(\d+) ", line)
    return f"{line};{hint}" if match and match[1] in codecs and hint not in line else line
