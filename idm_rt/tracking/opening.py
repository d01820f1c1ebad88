"""A ready tracker from a model file."""

from __future__ import annotations

from pathlib import Path

from idm_rt.tracking.finders import FinderOptions, PhotoFaceFinder, VideoFaceFinder
from idm_rt.tracking.landmarker import FaceDetector, FaceLandmarker
from idm_rt.tracking.tracker import FaceTracker, TrackerOptions

_SPARE_FACES = 2  # followed beyond max_faces, so that the largest can be told from the next


def open_tracker(task_path: Path | str, options: TrackerOptions | None = None) -> FaceTracker:
    """A tracker on mediapipe's nets; ``options.video`` picks the finder for streams or for unrelated photos.

    Args:
        task_path: a face_landmarker.task (``idm-rt models fetch`` gets it).

    Raises:
        EngineError: mediapipe is not installed.
        ModelError: the file is missing or broken.
    """
    options = options or TrackerOptions()
    finder_options = FinderOptions(min_face_px=options.min_face_px, max_faces=options.max_faces + _SPARE_FACES)
    detector = FaceDetector(task_path)
    try:
        landmarker = FaceLandmarker(task_path)
    except BaseException:
        detector.close()
        raise
    kind = VideoFaceFinder if options.video else PhotoFaceFinder
    return FaceTracker(kind(detector, landmarker, finder_options), options)
