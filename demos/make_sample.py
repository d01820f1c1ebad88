"""Make the sample call: NASA's portrait of Eileen Collins (public domain), moved and degraded like a bad video call.

    python demos/make_sample.py demos/sample/astronaut_call.mp4

The motion is periodic, so that the clip can be played in a loop. The same versions of the libraries give the same
file. Needs scikit-image, which is in the extra ``dev``.
"""

from __future__ import annotations

import argparse
import math
from fractions import Fraction
from pathlib import Path

import av
import cv2
import numpy as np
from skimage.data import astronaut

WIDTH, HEIGHT, FPS, SECONDS = 640, 480, 25, 4
FACE_XY = (226.0, 138.0)  # px of the portrait: what the camera looks at
ZOOM = 1.75  # frame px per portrait px
DEFOCUS_PX = 1.6  # standard deviation of the blur
NOISE = 7.0  # standard deviation of the sensor noise, 8-bit steps
BITS_PER_SECOND = 150_000


def camera(phase: float) -> np.ndarray:
    """(2, 3) matrix from portrait px to frame px at a phase 0..1 of the loop: sway, nod, lean in, tilt the head."""
    turn = 2.0 * math.pi * phase
    zoom = ZOOM * (1.0 + 0.05 * math.sin(turn))
    roll = math.radians(4.0 * math.sin(turn + 1.0))
    x = FACE_XY[0] + 9.0 * math.sin(turn) + 3.0 * math.sin(3.0 * turn)
    y = FACE_XY[1] + 5.0 * math.sin(2.0 * turn + 0.5)
    linear = zoom * np.array([[math.cos(roll), -math.sin(roll)], [math.sin(roll), math.cos(roll)]])
    shift = np.array([WIDTH / 2.0, HEIGHT / 2.0]) - linear @ (x, y)
    return np.column_stack([linear, shift])


def shoot(portrait: np.ndarray, phase: float, rng: np.random.Generator) -> np.ndarray:
    """(HEIGHT, WIDTH, 3) uint8 RGB: what a cheap camera in a dim room sees."""
    view = cv2.warpAffine(
        portrait, camera(phase), (WIDTH, HEIGHT), flags=cv2.INTER_CUBIC, borderMode=cv2.BORDER_REPLICATE
    )
    soft = cv2.GaussianBlur(view, (0, 0), DEFOCUS_PX).astype(np.float32)
    noise = NOISE * rng.standard_normal(soft.shape, dtype=np.float32)
    return np.clip(0.9 * soft + noise, 0, 255).round().astype(np.uint8)


def write(path: Path) -> None:
    """Encode the clip with few bits, as a call on a bad network does."""
    portrait, rng = astronaut(), np.random.default_rng(0)
    count = FPS * SECONDS
    limit = {"maxrate": str(BITS_PER_SECOND), "bufsize": str(BITS_PER_SECOND // 2)}
    options = {"preset": "veryfast", "tune": "zerolatency", "threads": "1", **limit}
    with av.open(str(path), "w", options={"movflags": "+faststart"}) as output:
        output.metadata["comment"] = "NASA portrait of Eileen Collins, public domain; degraded by demos/make_sample.py"
        stream = output.add_stream("libx264", rate=FPS, options=options)
        stream.width, stream.height, stream.pix_fmt = WIDTH, HEIGHT, "yuv420p"
        stream.bit_rate = BITS_PER_SECOND
        for index in range(count):
            frame = av.VideoFrame.from_ndarray(shoot(portrait, index / count, rng), "rgb24")
            frame.pts, frame.time_base = index, Fraction(1, FPS)
            output.mux(stream.encode(frame))
        output.mux(stream.encode(None))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("output", type=Path, metavar="OUT.mp4")
    write(parser.parse_args().output)


if __name__ == "__main__":
    main()
