"""The five stages of one frame: track, crop, restore, blend, composite. Synchronous: no threads, no I/O, no clock of
its own (a ``StageTimer`` may be handed in)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from idm_rt.blending import TemporalBlender
from idm_rt.compositing import CompositeOptions, composite, face_confidence
from idm_rt.geometry import align_matrix, crop_face
from idm_rt.landmarks import five_points
from idm_rt.timing import StageTimer
from idm_rt.tracking import FaceTracker
from idm_rt.types import FaceCrop, FaceTrack, Frame, RestoredFace, RgbImage


class CropRestorer(Protocol):
    """What the pipeline needs of a restorer; see ``idm_rt.restorer.Restorer``."""

    @property
    def size(self) -> int:
        """Side S of the crops, px."""
        ...

    def correction(self, crops: NDArray[np.uint8], steps: int = 1) -> NDArray[np.float32]:
        """(N, S, S, 3) uint8 -> (N, S, S, 3) float32, restored minus crop in 8-bit steps."""
        ...


@dataclass(frozen=True, slots=True)
class PipelineResult:
    """One frame's outcome."""

    frame: Frame  # same pts and time_base as the input; the very same object when nothing was changed
    tracks: list[FaceTrack]  # every face seen, largest first
    restored: int = 0  # how many of them went through the network
    scene_cut: bool = False


class Pipeline:
    """Runs the stages. State lives in the tracker, the blender and the restorer's buffers only."""

    def __init__(
        self,
        tracker: FaceTracker,
        restorer: CropRestorer,
        blender: TemporalBlender | None,
        options: CompositeOptions | None = None,
        timer: StageTimer | None = None,
    ) -> None:
        """``blender`` None: frames are unrelated pictures."""
        self._tracker, self._restorer, self._blender = tracker, restorer, blender
        self._options = options or CompositeOptions()
        self._timer = timer or StageTimer()

    def reset(self) -> None:
        """Forget every face: the next frame starts a new stream."""
        self._tracker.reset()
        if self._blender is not None:
            self._blender.reset()

    def process(
        self, frame: Frame, timestamp_ms: float, steps: int = 1, strength: float = 1.0, carry: bool = False
    ) -> PipelineResult:
        """Restore the faces of one frame.

        Args:
            frame: the picture; never changed.
            timestamp_ms: when it is shown; should rise.
            steps: diffusion steps per face, one of the model's.
            strength: 0..1; how much of the correction is shown.
            carry: do not run the network; each face's last correction is moved along with it instead.

        Raises:
            ValueError: ``carry`` without a blender, which is what remembers the last correction.
        """
        if carry and self._blender is None:
            raise ValueError(
                "carry is True, expected a pipeline with a blender: unrelated pictures share no correction"
            )
        stage = self._timer.stage
        with stage("track"):
            tracking = self._tracker.update(frame.image, timestamp_ms)
            if tracking.scene_cut and self._blender is not None:
                self._blender.reset()
        with stage("crop"):
            crops = self._crop(frame.image, tracking.tracks)
        faces = self._carry(crops, timestamp_ms) if carry else self._renew(crops, timestamp_ms, steps)
        with stage("composite"):
            image = composite(frame.image, faces, strength, self._options)
        changed = frame if image is frame.image else replace(frame, image=image)
        return PipelineResult(changed, tracking.tracks, 0 if carry else len(crops), tracking.scene_cut)

    def _crop(self, image: RgbImage, tracks: Sequence[FaceTrack]) -> list[FaceCrop]:
        """Cut out the faces of which anything may be shown; the others cost no network time."""
        frame_hw = image.shape[0], image.shape[1]
        shown = [track for track in tracks if face_confidence(track, frame_hw, self._options) > 0.0]
        matrices = [align_matrix(five_points(track.landmarks_xy), self._restorer.size) for track in shown]
        return [
            FaceCrop(track, crop_face(image, matrix, self._restorer.size), matrix)
            for track, matrix in zip(shown, matrices, strict=True)
        ]

    def _renew(self, crops: Sequence[FaceCrop], timestamp_ms: float, steps: int) -> list[RestoredFace]:
        """Corrections from the network, steadied by those of the frames before."""
        with self._timer.stage("restore"):
            faces = self._restore(crops, steps)
        with self._timer.stage("blend"):
            return faces if self._blender is None else self._blender.blend(faces, timestamp_ms)

    def _carry(self, crops: Sequence[FaceCrop], timestamp_ms: float) -> list[RestoredFace]:
        """Corrections of the frame before, moved along with the faces."""
        assert self._blender is not None
        with self._timer.stage("blend"):
            return self._blender.carry(crops, timestamp_ms)

    def _restore(self, crops: Sequence[FaceCrop], steps: int) -> list[RestoredFace]:
        """All faces of the frame in one batch."""
        if not crops:
            return []
        corrections = self._restorer.correction(np.stack([crop.image for crop in crops]), steps)
        return [RestoredFace(crop, correction) for crop, correction in zip(crops, corrections, strict=True)]
