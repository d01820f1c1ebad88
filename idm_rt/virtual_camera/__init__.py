"""A virtual webcam: camera, screen or file in; enhanced live; virtual device, file or pipe out at a constant rate."""

from __future__ import annotations

# PyAV before OpenCV, which the others import: see ``check_load_order`` in idm_rt.media.capture.
from idm_rt.media import capture as _capture  # noqa: F401
from idm_rt.virtual_camera.records import CameraControls, CameraOptions, CameraStatus
from idm_rt.virtual_camera.sink_choice import SinkSpec, parse_sink, sink_opener
from idm_rt.virtual_camera.sources import SourceSpec, natural_size, opener_of, parse_source
from idm_rt.virtual_camera.virtual_camera import VirtualCamera

__all__ = [
    "CameraControls",
    "CameraOptions",
    "CameraStatus",
    "SinkSpec",
    "SourceSpec",
    "VirtualCamera",
    "natural_size",
    "opener_of",
    "parse_sink",
    "parse_source",
    "sink_opener",
]
