"""A virtual webcam of one's own: the library calls behind ``idm-rt camera``, without keys, page and window.

    python demos/virtual_webcam.py                                        # first camera -> first virtual camera
    python demos/virtual_webcam.py --source test --output out.mp4 --seconds 10      # nothing but this computer needed

Ctrl-C ends. A virtual camera needs ``pip install 'idm-rt[camera]'`` and a device: ``idm-rt doctor`` says how to get it.
"""

from __future__ import annotations

import argparse
import sys
import time

# idm_rt.virtual_camera before anything that loads OpenCV: it loads PyAV first, which capturing a screen needs.
from idm_rt.virtual_camera import (
    CameraOptions,
    VirtualCamera,
    natural_size,
    opener_of,
    parse_sink,
    parse_source,
    sink_opener,
)

# isort: split
from idm_rt.config import EnhancerConfig
from idm_rt.errors import IdmError
from idm_rt.sample_clip import sample_clip
from idm_rt.worker import enhancer_opener

FPS = 30.0


def make_camera(source_name: str, output_name: str) -> VirtualCamera:
    """From two names to a camera that waits to be started."""
    source = parse_source(source_name, loop=True, sample=sample_clip)
    size = natural_size(source) or (1280, 720)
    sink = parse_sink(output_name, overwrite=True, source=source.path)
    return VirtualCamera(
        opener_of(source, size, FPS),
        sink_opener(sink, size, FPS),
        enhancer_opener(EnhancerConfig(steps=1)),
        CameraOptions(size=size, fps=FPS),
    )


def main() -> int:
    """Run until Ctrl-C or until the time is over, with a line per second."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--source", default="camera", help="camera, camera:NAME, screen, test or a video file")
    parser.add_argument("--output", default="device", help="device, device:NAME, a video file or a named pipe")
    parser.add_argument("--seconds", type=float, default=float("inf"), help="end after so long")
    options = parser.parse_args()
    until_s = time.monotonic() + options.seconds
    try:
        with make_camera(options.source, options.output) as camera:
            while time.monotonic() < until_s and not camera.wait(1.0):
                status = camera.status()
                output = status.output
                print(f"{status.source.status}, {output.fps:.1f} fps, {output.shown}, {status.worker.level}")
        camera.close(timeout_s=60.0)  # should the engine still be opening: native code does not like to be interrupted
        if camera.failure is not None:
            raise camera.failure
    except KeyboardInterrupt:
        return 0
    except IdmError as error:
        print(error, file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
