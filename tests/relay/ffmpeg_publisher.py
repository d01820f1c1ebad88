"""FFmpeg's own WHIP muxer (in PyAV) as a publisher: ``python ffmpeg_publisher.py ADDRESS SECONDS``."""

from __future__ import annotations

import sys
import tempfile
import time
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
from aiortc.rtcdtlstransport import RTCCertificate
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

FPS, AUDIO_RATE, AUDIO_SAMPLES = 30, 48_000, 960


def write_certificate(folder: Path) -> dict[str, str]:
    """The muxer's options for a P-256 certificate: with one of its own making the DTLS handshake fails."""
    made = RTCCertificate.generateCertificate()
    certificate, key = folder / "certificate.pem", folder / "key.pem"
    certificate.write_bytes(made._cert.public_bytes(Encoding.PEM))
    key.write_bytes(made._key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
    return {"cert_file": str(certificate), "key_file": str(key)}


def publish(address: str, seconds: float, options: dict[str, str]) -> None:
    """Grey pictures as H.264 baseline and silence as Opus, in real time: the muxer knows no other formats."""
    picture = av.VideoFrame.from_ndarray(np.full((180, 160), 128, np.uint8), "yuv420p")
    silence = av.AudioFrame.from_ndarray(np.zeros((1, 2 * AUDIO_SAMPLES), np.int16), "s16", "stereo")
    silence.sample_rate = AUDIO_RATE
    with av.open(address, "w", format="whip", options=options) as output:
        encoder = {"preset": "ultrafast", "tune": "zerolatency", "profile": "baseline", "g": str(FPS // 2)}
        video = output.add_stream("libx264", rate=FPS, options=encoder)
        video.width, video.height, video.pix_fmt = 160, 120, "yuv420p"
        audio = output.add_stream("libopus", rate=AUDIO_RATE)
        audio.layout = "stereo"
        start_s, sound = time.monotonic(), 0
        for number in range(round(seconds * FPS)):
            picture.pts, picture.time_base = number, Fraction(1, FPS)
            output.mux(video.encode(picture))
            while sound * FPS < (number + 1) * AUDIO_RATE:
                silence.pts, silence.time_base = sound, Fraction(1, AUDIO_RATE)
                output.mux(audio.encode(silence))
                sound += AUDIO_SAMPLES
            time.sleep(max(0.0, start_s + (number + 1) / FPS - time.monotonic()))


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as temporary:
        publish(sys.argv[1], float(sys.argv[2]), write_certificate(Path(temporary)))
