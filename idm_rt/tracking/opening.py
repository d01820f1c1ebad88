"""A ready tracker from a model file."""

from __future__ import annotations

import logging
from contextlib import ExitStack
from pathlib import Path

from idm_rt.cpu_info import available_cpus
from idm_rt.errors import ConfigError, EngineError
from idm_rt.tracking.face_search import BoxDetector, MeshDetector
from idm_rt.tracking.finders import FinderOptions, PhotoFaceFinder, VideoFaceFinder
from idm_rt.tracking.landmarker import FaceDetector, FaceLandmarker
from idm_rt.tracking.self_check import check_nets
from idm_rt.tracking.tracker import FaceTracker, TrackerOptions

logger = logging.getLogger(__name__)

BACKENDS = ("auto", "openvino", "mediapipe")
_MAX_THREADS = 2  # the nets are small: a third thread brings nothing and takes a core from the restorer
_SPARE_FACES = 2  # followed beyond max_faces, so that the largest can be told from the next


def open_tracker(
    task_path: Path | str, options: TrackerOptions | None = None, *, backend: str = "auto", threads: int | None = None
) -> FaceTracker:
    """A tracker on the nets of a model file; ``options.video`` picks the finder for streams or for unrelated photos.

    Args:
        task_path: a face_landmarker.task (``idm-rt models fetch`` gets it).
        options: when a face counts.
        backend: what runs the nets; "auto" = OpenVINO where it passes a self-check, else mediapipe, and the reason
            is logged. ``FaceTracker.backend`` and ``backend_reason`` say which it was.
        threads: OpenVINO's inference threads, never more than two; None = as many as CPUs may be used.

    Raises:
        ConfigError: an unknown backend.
        EngineError: the backend is not installed or does not work.
        ModelError: the file is missing or broken.
    """
    if backend not in BACKENDS:
        raise ConfigError(f"tracker backend is {backend!r}; choose one of {', '.join(BACKENDS)}")
    options = options or TrackerOptions()
    detector, mesh, name, reason = _open_nets(task_path, backend, threads)
    finder_options = FinderOptions(min_face_px=options.min_face_px, max_faces=options.max_faces + _SPARE_FACES)
    kind = VideoFaceFinder if options.video else PhotoFaceFinder
    return FaceTracker(kind(detector, mesh, finder_options), options, backend=name, backend_reason=reason)


def _open_nets(task_path: Path | str, backend: str, threads: int | None) -> tuple[BoxDetector, MeshDetector, str, str]:
    """Both nets, the name of what runs them, and why."""
    if backend == "mediapipe":
        return *_mediapipe_nets(task_path), "mediapipe", "asked for"
    try:
        nets = _openvino_nets(task_path, min(threads or available_cpus(), _MAX_THREADS))
    except EngineError as error:
        if backend == "openvino":
            raise
        logger.warning("the face tracker runs on mediapipe, which is slower than OpenVINO: %s", error)
        return *_mediapipe_nets(task_path), "mediapipe", f"openvino cannot be used: {error}"
    return *nets, "openvino", "asked for" if backend == "openvino" else "the fastest that works here"


def _openvino_nets(task_path: Path | str, threads: int) -> tuple[BoxDetector, MeshDetector]:
    try:
        from idm_rt.tracking.openvino_nets import OpenVinoFaceDetector, OpenVinoFaceMesh
    except (ImportError, OSError) as error:  # installed, but its native libraries do not load
        raise EngineError(f"openvino cannot be imported ({error}); run 'pip install openvino'") from error
    with ExitStack() as opened:
        detector = opened.enter_context(OpenVinoFaceDetector(task_path, threads=threads))
        mesh = opened.enter_context(OpenVinoFaceMesh(task_path, threads=threads))
        check_nets(detector, mesh)
        opened.pop_all()  # they work: the caller closes them
    return detector, mesh


def _mediapipe_nets(task_path: Path | str) -> tuple[BoxDetector, MeshDetector]:
    with ExitStack() as opened:
        detector = opened.enter_context(FaceDetector(task_path))
        mesh = FaceLandmarker(task_path)
        opened.pop_all()
    return detector, mesh
