"""Helpers of the command line's tests: outcomes, small videos, leftovers."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path

import av
import numpy as np


@dataclass(frozen=True)
class Outcome:
    """What a command left behind."""

    code: int
    out: str
    err: str

    @property
    def error(self) -> str:
        """The one line of error; fails if there is more, less, or a traceback."""
        lines = self.err.splitlines()
        assert len(lines) == 1, self.err
        assert lines[0].startswith("idm-rt: error: ") and "Traceback" not in self.err
        return lines[0].removeprefix("idm-rt: error: ")


Cli = Callable[..., Outcome]


def command(*arguments: object) -> list[str]:
    """The command line of a process of its own."""
    return [sys.executable, "-m", "idm_rt", *map(str, arguments)]


def wall(height: int, width: int, seed: int = 0) -> np.ndarray:
    """(H, W, 3) uint8 RGB noise: nobody is in it, and it does not compress."""
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)


def write_video(
    path: Path, pictures: Iterable[np.ndarray], pts: Sequence[int] | None = None, *, sound: bool = False
) -> Path:
    """H.264 (and AAC), time base 1/90000, 25 frames per second unless ``pts`` says otherwise."""
    with av.open(str(path), "w") as output:
        stream = None
        audio = output.add_stream("aac", rate=48000) if sound else None
        for index, picture in enumerate(pictures):
            if stream is None:
                stream = output.add_stream("libx264", rate=25, options={"crf": "20", "preset": "ultrafast", "bf": "0"})
                stream.height, stream.width = picture.shape[:2]
                odd = picture.shape[0] % 2 or picture.shape[1] % 2
                stream.pix_fmt = "yuv444p" if odd else "yuv420p"
                stream.time_base = stream.codec_context.time_base = Fraction(1, 90000)
            frame = av.VideoFrame.from_ndarray(picture, "rgb24")
            frame.pts, frame.time_base = pts[index] if pts else index * 3600, Fraction(1, 90000)
            output.mux(stream.encode(frame))
        if stream is not None:
            output.mux(stream.encode(None))
        if audio is not None:
            write_sound(output, audio)
    return path


def write_sound(output: av.container.OutputContainer, stream: av.AudioStream, seconds: float = 1.0) -> None:
    wave = (0.2 * np.sin(2 * np.pi * 440 * np.arange(int(48000 * seconds)) / 48000)).astype(np.float32)
    frame = av.AudioFrame.from_ndarray(np.stack([wave, wave]), format="fltp", layout="stereo")
    frame.sample_rate, frame.pts, frame.time_base = 48000, 0, Fraction(1, 48000)
    resampler = av.AudioResampler(format="fltp", layout="stereo", rate=48000, frame_size=1024)
    for piece in [*resampler.resample(frame), *resampler.resample(None)]:
        output.mux(stream.encode(piece))
    output.mux(stream.encode(None))


def leftovers(folder: Path) -> list[str]:
    """Names of unfinished files."""
    return sorted(path.name for path in folder.rglob("*") if path.name.endswith(".part"))
