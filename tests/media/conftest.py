"""Small video files of many shapes, made with PyAV alone."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest


@dataclass(frozen=True)
class ClipSpec:
    """What ``make_clip`` shall write."""

    width: int = 64
    height: int = 48
    pts: Sequence[int] = tuple(range(12))
    time_base: Fraction = Fraction(1, 30)
    rate: int = 30
    codec: str = "libx264"
    options: dict[str, str] = field(default_factory=lambda: {"crf": "12", "preset": "fast", "bf": "0"})
    pixel_format: str = "yuv420p"
    colour: tuple[int, int, int, int] = (0, 2, 2, 2)  # range, matrix, primaries, transfer
    aspect: Fraction | None = None
    rotation: tuple[float, bool, bool] | None = None  # counter-clockwise degrees, hflip, vflip
    audio: str | None = None  # codec
    audio_start: int = 0  # samples
    audio_seconds: float = 0.5
    muxer_options: dict[str, str] = field(default_factory=dict)
    metadata: dict[str, str] = field(default_factory=dict)


def picture(width: int, height: int, index: int = 0) -> np.ndarray:
    """(H, W, 3) smooth colours that differ in every corner and move with ``index``."""
    x = np.linspace(0.0, 1.0, width)[None, :]
    y = np.linspace(0.0, 1.0, height)[:, None]
    shift = 0.02 * index
    red, green = 40 + 170 * (0.8 * x + 0.2 * y), 40 + 150 * (1 - y) + 0 * x
    blue = 60 + 140 * np.abs(np.sin(2.0 * (x - y) + shift))
    return np.stack([red, green, blue], axis=-1).round().astype(np.uint8)


def write_clip(path: Path, spec: ClipSpec) -> Path:
    options = dict(spec.muxer_options)
    if path.suffix in (".mp4", ".mov"):  # FFmpeg's default rounds start times to milliseconds
        options["movie_timescale"] = str(spec.time_base.denominator * math.ceil(48000 / spec.time_base.denominator))
    with av.open(str(path), "w", container_options=options) as output:
        output.metadata.update(spec.metadata)
        video = _video_stream(output, spec)
        sound = output.add_stream(spec.audio, rate=48000) if spec.audio else None
        output.start_encoding()
        if sound is not None:
            _write_sound(output, sound, spec)
        for index, pts in enumerate(spec.pts):
            output.mux(video.encode(_frame(spec, index, pts)))
        output.mux(video.encode(None))
    return path


def _video_stream(output: Any, spec: ClipSpec) -> Any:
    video = output.add_stream(spec.codec, rate=spec.rate, options=spec.options)
    video.width, video.height, video.pix_fmt = spec.width, spec.height, spec.pixel_format
    video.time_base = video.codec_context.time_base = spec.time_base
    context = video.codec_context
    context.color_range, context.colorspace, context.color_primaries, context.color_trc = spec.colour
    if spec.aspect is not None:
        context.sample_aspect_ratio = spec.aspect
    if spec.rotation is not None:
        degrees, hflip, vflip = spec.rotation
        video.set_display_rotation(degrees, hflip=hflip, vflip=vflip)
    return video


def _frame(spec: ClipSpec, index: int, pts: int) -> av.VideoFrame:
    rgb = av.VideoFrame.from_ndarray(picture(spec.width, spec.height, index), "rgb24")
    levels, matrix = spec.colour[0] or 1, spec.colour[1] if spec.colour[1] in (1, 5, 9) else 5
    accurate = 2 | 0x40000 | 0x2000 | 0x4000  # SWS_BILINEAR, ACCURATE_RND, FULL_CHR_H_INT, FULL_CHR_H_INP
    frame = rgb.reformat(
        format=spec.pixel_format, dst_colorspace=matrix, dst_color_range=levels, interpolation=accurate
    )
    frame.pts, frame.time_base = pts, spec.time_base
    return frame


def _write_sound(output: Any, sound: Any, spec: ClipSpec) -> None:
    count = int(48000 * spec.audio_seconds)
    wave = (0.3 * np.sin(2 * np.pi * 440 * np.arange(count) / 48000)).astype(np.float32)
    frame = av.AudioFrame.from_ndarray(np.stack([wave, wave]), format="fltp", layout="stereo")
    frame.sample_rate, frame.pts, frame.time_base = 48000, spec.audio_start, Fraction(1, 48000)
    resampler = av.AudioResampler(format=sound.codec_context.format, layout="stereo", rate=48000)
    for piece in resampler.resample(frame):
        output.mux(sound.encode(piece))
    output.mux(sound.encode(None))


@pytest.fixture
def make_clip(tmp_path: Path) -> Callable[..., Path]:
    """Write a clip: ``make_clip("a.mp4", width=..., ...)`` with the fields of ``ClipSpec``."""

    def make(name: str = "source.mp4", **spec: Any) -> Path:
        return write_clip(tmp_path / name, ClipSpec(**spec))

    return make


@pytest.fixture(name="picture")
def picture_fixture() -> Callable[..., np.ndarray]:
    return picture
