"""The two nets of face_landmarker.task run in OpenVINO, without mediapipe.

The mesh net is shown a square around the face as it was last seen, turned so that the eyes are level: what
MediaPipe's own pipeline does with a face it follows, and half of the work of asking mediapipe for every picture anew.
Both nets count from the outer corner of their input: measured for the mesh on 60 photos and their mirror pictures,
whose meshes agree to 0.05 of the net's px.
"""

from __future__ import annotations

import math
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import cv2
import numpy as np
from numpy.typing import NDArray

from idm_rt.backends.base import one_line
from idm_rt.backends.openvino_backend import compile_model
from idm_rt.errors import EngineError
from idm_rt.geometry import invert_affine, transform_points
from idm_rt.landmarks import NUM_LANDMARKS
from idm_rt.tracking import blazeface, bundle, windows
from idm_rt.tracking.head_pose import head_pose, read_canonical_face
from idm_rt.tracking.records import FaceBox, RawFace
from idm_rt.types import FloatArray, RgbImage, check_rgb

_MIN_SIDE = 8  # px: nothing to find below
_MESH_SIZE = 256  # px: side of the square the mesh net looks at
_MESH_ROOM = 1.4  # side of that square in face sizes; see docs/adr/0006
_CAMERA_ROOM = 2.0  # face sizes that the camera assumed for the head pose sees


class _Net:
    """One compiled net of one input and its life."""

    def __init__(self, task_path: Path | str, member: str, size: int, threads: int | None) -> None:
        model = bundle.read_member(task_path, member)
        self._request: Any = compile_model(model, [1, size, size, 3], threads=threads)
        self._input = np.zeros((1, size, size, 3), np.float32)

    def close(self) -> None:
        """Free the net; a second call does nothing."""
        self._request = None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _run(self) -> list[NDArray[np.float32]]:
        """The outputs for what lies in ``_input``: views that the next run overwrites."""
        if self._request is None:
            raise ValueError(f"{type(self).__name__} is closed")
        try:
            outputs = self._request.infer([self._input], share_inputs=True, share_outputs=True)
            return [outputs[i] for i in range(len(outputs))]
        except RuntimeError as error:
            raise EngineError(
                f"openvino failed in the face tracker: {one_line(error)}; try idm_rt's mediapipe nets"
            ) from error


class OpenVinoFaceDetector(_Net):
    """Short-range face detector; what it finds is said in ``landmarker.FaceDetector``.

    Args:
        task_path: a face_landmarker.task; the detector inside it is used.
        min_score: detections below are dropped, 0..1.
        threads: inference threads; None = every CPU this process may use.

    Raises:
        EngineError: OpenVINO refuses the net.
        ModelError: the file is missing or not a face_landmarker.task.
    """

    def __init__(self, task_path: Path | str, *, min_score: float = 0.5, threads: int | None = None) -> None:
        super().__init__(task_path, bundle.DETECTOR, blazeface.INPUT_SIZE, threads)
        self._anchors = blazeface.anchors()
        self._min_score = min_score

    def detect(self, image: RgbImage) -> list[FaceBox]:
        """Faces of one (H, W, 3) picture, in px of that picture, most certain first."""
        height, width = check_rgb(image).shape[:2]
        if min(height, width) < _MIN_SIDE:
            return []
        centre = np.array([width - 1.0, height - 1.0]) / 2.0
        matrix = square_matrix(centre, max(height, width), 0.0, blazeface.INPUT_SIZE)
        picture = cv2.warpAffine(image, matrix, (blazeface.INPUT_SIZE,) * 2, flags=cv2.INTER_LINEAR)  # black around
        np.multiply(picture, np.float32(1.0 / 127.5), out=self._input[0], dtype=np.float32)
        self._input -= 1.0
        regressors, logits = self._run()
        found = blazeface.decode(regressors[0], logits[0, :, 0], self._anchors, self._min_score)
        back = invert_affine(matrix)
        return [
            FaceBox(_corners_back(back, face.box_xyxy * blazeface.INPUT_SIZE - 0.5), face.score, face.roll_rad)
            for face in found
        ]


class OpenVinoFaceMesh(_Net):
    """Face mesh of 478 points; one face per call, where it is expected.

    Args:
        task_path: a face_landmarker.task.
        min_presence: how sure the net must be that it sees a face, 0..1.
        threads: inference threads; None = every CPU this process may use.

    Raises:
        EngineError: OpenVINO refuses the net.
        ModelError: the file is missing or not a face_landmarker.task.
    """

    def __init__(self, task_path: Path | str, *, min_presence: float = 0.95, threads: int | None = None) -> None:
        super().__init__(task_path, bundle.MESH, _MESH_SIZE, threads)
        self._canonical = read_canonical_face(bundle.read_member(task_path, bundle.CANONICAL_FACE))
        self._min_presence = min_presence

    def detect(self, image: RgbImage, around: FaceBox) -> list[RawFace]:
        """The mesh of the face expected in a box of an (H, W, 3) picture, in its px; empty if there is none.

        What lies outside the picture repeats its border.
        """
        if min(check_rgb(image).shape[:2]) < _MIN_SIDE:
            return []
        centre, size = (around.box_xyxy[:2] + around.box_xyxy[2:]) / 2.0, windows.larger_side(around.box_xyxy)
        mesh, presence = self._look(image, square_matrix(centre, _MESH_ROOM * size, around.roll_rad, _MESH_SIZE))
        if not (presence >= self._min_presence and np.isfinite(mesh).all()):
            return []
        yaw, pitch = head_pose(self._canonical, mesh, centre, _CAMERA_ROOM * size)
        return [RawFace(mesh[:, :2].copy(), yaw, pitch, presence)]

    def _look(self, image: RgbImage, matrix: FloatArray) -> tuple[FloatArray, float]:
        """Mesh (478, 3) in px of the picture and the presence score, 0..1, of what a (2, 3) matrix cuts out."""
        picture = cv2.warpAffine(
            image, matrix, (_MESH_SIZE, _MESH_SIZE), flags=cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE
        )
        np.multiply(picture, np.float32(1.0 / 255.0), out=self._input[0], dtype=np.float32)
        outputs = self._run()
        points = outputs[0].reshape(NUM_LANDMARKS, 3).astype(np.float64)
        back = invert_affine(matrix)
        depth = points[:, 2] * math.hypot(back[0, 0], back[1, 0])
        presence = 1.0 / (1.0 + math.exp(-min(max(float(outputs[1].flat[0]), -100.0), 100.0)))
        return np.column_stack([transform_points(back, points[:, :2] - 0.5), depth]), presence


def square_matrix(centre_xy: FloatArray, side: float, roll_rad: float, size: int) -> FloatArray:
    """(2, 3) matrix from picture px to px of a (size, size) cut-out of the turned square; pixel centres at integers."""
    scale = size / max(side, 1e-6)
    cos, sin = scale * math.cos(roll_rad), scale * math.sin(roll_rad)
    linear = np.array([[cos, sin], [-sin, cos]])
    return np.column_stack([linear, (size - 1) / 2.0 - linear @ centre_xy])


def _corners_back(matrix: FloatArray, box_xyxy: FloatArray) -> FloatArray:
    return transform_points(matrix, box_xyxy.reshape(2, 2)).ravel()
