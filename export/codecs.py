"""Real encoder round trips in the real-time settings of video calls, through PyAV."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import cast

import cv2
import numpy as np

os.environ.setdefault("SVT_LOG", "1")  # libsvtav1 reports every setting on stderr otherwise


@dataclass(frozen=True, slots=True)
class Codec:
    """An encoder and decoder pair and how a quantiser between 0 (fine) and 1 (coarse) is asked for."""

    encoder: str
    decoder: str
    options: Callable[[float], dict[str, str]]


def _between(low: int, high: int, q: float) -> str:
    return str(round(low + (high - low) * min(max(q, 0.0), 1.0)))


def _vpx(q: float, speed: str) -> dict[str, str]:
    level = _between(8, 63, q)
    return {"deadline": "realtime", "cpu-used": speed, "lag-in-frames": "0", "qmin": level, "qmax": level, "b": "10M"}


def _vp8(q: float) -> dict[str, str]:
    return _vpx(q, "-8")  # a positive speed is only a hint that libvpx adapts to the clock: not reproducible


def _vp9(q: float) -> dict[str, str]:
    return _vpx(q, "8")


def _x264(q: float) -> dict[str, str]:
    return {"preset": "veryfast", "tune": "zerolatency", "profile": "baseline", "qp": _between(20, 46, q)}


def _svtav1(q: float) -> dict[str, str]:
    return {"preset": "11", "crf": _between(18, 63, q), "svtav1-params": "lookahead=0:pred-struct=1:lp=1"}


CODECS = {
    "vp8": Codec("libvpx", "vp8", _vp8),
    "vp9": Codec("libvpx-vp9", "vp9", _vp9),
    "h264": Codec("libx264", "h264", _x264),
    "av1": Codec("libsvtav1", "libdav1d", _svtav1),
}


def at_bitrate(name: str, kbps: float) -> dict[str, str]:
    """Options of constant bitrate for a codec of ``CODECS``, as a call's sender sets them: half a second of buffer."""
    rate = {"b": f"{kbps:.0f}k", "maxrate": f"{kbps:.0f}k", "bufsize": f"{kbps / 2:.0f}k"}
    if name in ("vp8", "vp9"):
        speed = "-8" if name == "vp8" else "8"
        real_time = {"deadline": "realtime", "cpu-used": speed, "lag-in-frames": "0", "error-resilient": "1"}
        return {**rate, **real_time, "minrate": rate["b"]}
    if name == "h264":
        return {**rate, "preset": "veryfast", "tune": "zerolatency", "profile": "baseline"}
    return {"b": rate["b"], "preset": "11", "svtav1-params": "lookahead=0:pred-struct=1:rc=2:lp=1"}


def encode_decode(frames: Sequence[np.ndarray], codec: Codec, q: float) -> list[np.ndarray]:
    """The frames (H, W, 3), H and W even, as a viewer of a call would see them; the first is a key frame.

    Raises:
        RuntimeError: the decoder returned another number of frames.
    """
    return round_trip(frames, codec, codec.options(q))


def round_trip(
    frames: Sequence[np.ndarray], codec: Codec, options: dict[str, str], rate: Fraction = Fraction(30)
) -> list[np.ndarray]:
    """The same with any options of the encoder, at ``rate`` frames per second."""
    import av
    from av.video.codeccontext import VideoCodecContext

    height, width = frames[0].shape[:2]
    encoder = cast(VideoCodecContext, av.CodecContext.create(codec.encoder, "w"))
    encoder.width, encoder.height, encoder.pix_fmt = width, height, "yuv420p"
    encoder.time_base, encoder.framerate = 1 / rate, rate
    encoder.options = options
    encoder.thread_count = 1
    decoder = cast(VideoCodecContext, av.CodecContext.create(codec.decoder, "r"))
    decoder.thread_count = 1
    decoded = []
    for index, image in enumerate([*frames, None]):
        picture = None
        if image is not None:
            picture = av.VideoFrame.from_ndarray(image, format="rgb24")
            picture.pts = index
        for packet in encoder.encode(picture):
            decoded += decoder.decode(packet)
    decoded += decoder.decode(None)
    if len(decoded) != len(frames):
        raise RuntimeError(f"{codec.encoder}: {len(frames)} frames went in, {len(decoded)} came out")
    return [frame.to_ndarray(format="rgb24")[:height, :width] for frame in decoded]


def jpeg_round_trip(image: np.ndarray, quality: int) -> np.ndarray:
    """Encode and decode as JPEG (what MJPEG web cameras do), quality 1..100."""
    data = cv2.imencode(".jpg", np.ascontiguousarray(image[..., ::-1]), [cv2.IMWRITE_JPEG_QUALITY, quality])[1]
    return np.ascontiguousarray(np.asarray(cv2.imdecode(data, cv2.IMREAD_COLOR))[..., ::-1])
