"""The door to mediapipe: the only file that imports it, and only when a detector is opened.

Both nets come out of one ``face_landmarker.task`` (Google, Apache-2.0). They run in IMAGE mode, one call per
picture, without memory: see ``finders`` for what keeps faces over time and why mediapipe's VIDEO mode does not.
"""

from __future__ import annotations

import ctypes
import logging
import weakref
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import numpy as np

from idm_rt.errors import EngineError, ModelError
from idm_rt.landmarks import NUM_LANDMARKS
from idm_rt.tracking import bundle
from idm_rt.tracking.head_pose import look_degrees
from idm_rt.tracking.quiet import quiet_native_stderr
from idm_rt.tracking.records import FaceBox, RawFace
from idm_rt.types import RgbImage, check_rgb

logger = logging.getLogger(__name__)

_MIN_SIDE = 8  # px: nothing to find below, and mediapipe refuses some degenerate shapes
_CHATTER = (
    *("face_landmarker_graph.cc", "inference_feedback_manager.cc", "inference_runner_litert.cc"),
    *(
        "Logging before InitGoogle",
        "XNNPACK",
        "environment.cc",
        "accelerator_registry.cc",
        "gpu_registry.cc",
        "cpu_registry.cc",
    ),
    "compiled_model.cc",
)


class _Task:
    """Life of one mediapipe task: opened quietly, closed once, also when the interpreter ends."""

    def __init__(self, create: Any) -> None:
        with quiet_native_stderr(_CHATTER):
            self._task = create()
        self._talks = True  # the first inference logs too
        # mediapipe 1.2.2 raises from its own __del__ at interpreter exit unless it was closed; finalize comes first,
        # when this object is dropped or through atexit.
        self._finalizer = weakref.finalize(self, _close_quietly, self._task)

    def close(self) -> None:
        """Free the nets; a second call does nothing."""
        self._finalizer()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _run(self, image: RgbImage) -> Any:
        if not self._finalizer.alive:
            raise ValueError(f"{type(self).__name__} is closed")
        picture = _mediapipe().Image(
            image_format=_mediapipe().ImageFormat.SRGB, data=np.ascontiguousarray(check_rgb(image))
        )
        if not self._talks:
            return self._detect(picture)
        with quiet_native_stderr(_CHATTER):
            return self._detect(picture)

    def _detect(self, picture: Any) -> Any:
        try:
            return self._task.detect(picture)
        except RuntimeError as error:
            raise EngineError(f"mediapipe failed on a {picture.width}x{picture.height} picture: {error}") from error


class FaceDetector(_Task):
    """Short-range face detector (BlazeFace, Bazarevsky et al. 2019): boxes with a confidence.

    It sees the picture at 128x128, so faces smaller than about 15 % of the longer side are missed: search large
    pictures tile by tile (``windows.search_windows``). About 2 ms per call, whatever the picture's size.

    Args:
        task_path: a face_landmarker.task; the detector inside it is used.
        min_score: detections below are dropped, 0..1.

    Raises:
        EngineError: mediapipe is not installed or failed.
        ModelError: the file is missing or not a face_landmarker.task.
    """

    def __init__(self, task_path: Path | str, *, min_score: float = 0.5) -> None:
        vision = _vision()
        base = _base_options()(model_asset_buffer=bundle.read_member(task_path, bundle.DETECTOR))
        options = vision.FaceDetectorOptions(base_options=base, min_detection_confidence=min_score)
        super().__init__(lambda: _open(vision.FaceDetector, options, Path(task_path)))

    def detect(self, image: RgbImage) -> list[FaceBox]:
        """Faces of one (H, W, 3) picture, in px of that picture, most certain first."""
        if min(image.shape[:2]) < _MIN_SIDE:
            return []
        result = self._run(image)
        self._talks = False
        boxes = []
        for found in result.detections:
            box = found.bounding_box
            xyxy = np.array([box.origin_x, box.origin_y, box.origin_x + box.width, box.origin_y + box.height], float)
            boxes.append(FaceBox(xyxy, float(found.categories[0].score)))
        return sorted(boxes, key=lambda face: -face.score)


class FaceLandmarker(_Task):
    """Face mesh of 478 points (MediaPipe FaceLandmarker; Kartynnik et al. 2019, Grishchenko et al. 2020).

    Args:
        task_path: a face_landmarker.task.
        max_faces: faces meshed per call.
        min_presence: how sure the mesh net must be that it sees a face, 0..1. At 0.95 it still takes every one of 102
            real faces, photographed or filmed and made coarse, and refuses most of the things 0.5 lets pass.

    Raises:
        EngineError: mediapipe is not installed or failed.
        ModelError: the file is missing or not a face_landmarker.task.
    """

    def __init__(self, task_path: Path | str, *, max_faces: int = 1, min_presence: float = 0.95) -> None:
        vision = _vision()
        bundle.read_member(task_path, bundle.DETECTOR)  # a clear error for a missing or broken file
        options = vision.FaceLandmarkerOptions(
            base_options=_base_options()(model_asset_path=str(task_path)),
            num_faces=max_faces,
            min_face_presence_confidence=min_presence,
            output_facial_transformation_matrixes=True,
        )
        super().__init__(lambda: _open(vision.FaceLandmarker, options, Path(task_path)))

    def detect(self, image: RgbImage, around: FaceBox | None = None) -> list[RawFace]:
        """Meshes of one (H, W, 3) picture in which the faces are large: 20 to 70 % of its longer side.

        ``around`` is not looked at: mediapipe's own detector says where the faces are and how they are turned.
        """
        height, width = image.shape[:2]
        if min(height, width) < _MIN_SIDE:
            return []
        result = self._run(image)
        self._talks = self._talks and not result.face_landmarks
        faces = []
        for points, matrix in zip(result.face_landmarks, result.facial_transformation_matrixes, strict=True):
            xy = np.array([(point.x, point.y) for point in points], dtype=np.float64)
            if len(xy) == NUM_LANDMARKS and np.isfinite(xy).all():
                # mediapipe counts from the corner of the picture, this project from the first pixel's centre
                faces.append(RawFace(xy * (width, height) - 0.5, *look_degrees(np.asarray(matrix)[:3, 2])))
        return faces


def _close_quietly(task: Any) -> None:
    try:
        with quiet_native_stderr(_CHATTER):
            task.close()
    except RuntimeError as error:
        # At interpreter exit mediapipe's worker thread is gone before any atexit hook runs, so close() cannot work
        # and its __del__ would print a TypeError. One reference more and __del__ never runs; the process ends anyway.
        logger.debug("a mediapipe task was left to the end of the process: %s", error)
        ctypes.pythonapi.Py_IncRef(ctypes.py_object(task))


def _mediapipe() -> Any:
    try:
        import mediapipe
    except ImportError as error:
        raise EngineError(
            f"mediapipe cannot be imported ({error}); it finds the faces: run 'pip install mediapipe'"
        ) from error
    return mediapipe


def _vision() -> Any:
    _mediapipe()
    from mediapipe.tasks.python import vision

    return vision


def _base_options() -> Any:
    from mediapipe.tasks.python import BaseOptions

    return BaseOptions


def _open(kind: Any, options: Any, task_path: Path) -> Any:
    try:
        return kind.create_from_options(options)
    except (RuntimeError, ValueError, OSError) as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise ModelError(
            f"mediapipe cannot open {task_path} ({reason}); delete it and run 'idm-rt models fetch'"
        ) from error
