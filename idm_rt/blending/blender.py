"""The temporal blender: a recursive filter over each track's correction, in the face's own moving coordinates."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import cv2
import numpy as np

from idm_rt.blending.motion import (
    GATE_SIZE,
    FloatMap,
    FlowEstimator,
    GreyImage,
    crop_shift_px,
    grey_of,
    lag_gate,
    photometric_gate,
    stillness,
    warp_by_flow,
)
from idm_rt.blending.options import BlendOptions
from idm_rt.types import FaceCrop, FloatArray, RestoredFace, RgbImage


@dataclass(frozen=True, slots=True)
class _History:
    """What is remembered of one track: its last output, in the space of its last crop."""

    image: RgbImage  # (S, S, 3) the last crop
    frame_to_crop: FloatArray  # (2, 3) where it was cut
    grey: GreyImage  # (FLOW_SIZE, FLOW_SIZE) the same, small
    correction: FloatMap  # (S, S, 3) the last output
    count: FloatMap  # (GATE_SIZE, GATE_SIZE) how many frames the output stands for, pixel by pixel
    confidence: float
    timestamp_ms: float
    missed: int = 0


@dataclass(frozen=True, slots=True)
class _Prediction:
    """The last output as it should look in the present crop, before the present correction is seen."""

    correction: FloatMap  # (S, S, 3)
    gate: FloatMap  # (GATE_SIZE, GATE_SIZE) 0..1
    count: FloatMap  # (GATE_SIZE, GATE_SIZE) before gating, no more than this much motion allows


class TemporalBlender:
    """Smooths the correction of each track over time, without ghosts.

    Each output is ``prediction + gain * (correction - prediction)``, the Kalman-like update of KEEP (Feng et al.,
    "Kalman-Inspired Feature Propagation for Video Face Super-Resolution", ECCV 2024, jnjaby/KEEP), here in closed
    form: the prediction is the last output warped by optical flow, the gain is 1 / (count + 1), and the count is the
    number of agreeing frames behind the prediction, per pixel: at most ``max_count``, or ``still_count`` where nothing
    moves, since each warp costs detail. The count falls to 0, the gain to 1, and the past is forgotten where the
    motion-compensated last crop disagrees with the present one by more than noise (blink, mouth, occlusion, failed
    flow), or where the prediction's local mean has fallen behind the present correction (a slow shadow): no ghosts.
    State is held per ``track_id``; see ``reset``.
    """

    def __init__(self, options: BlendOptions | None = None) -> None:
        self._options = options or BlendOptions()
        self._flow = FlowEstimator()
        self._histories: dict[int, _History] = {}

    def blend(self, faces: Sequence[RestoredFace], timestamp_ms: float) -> list[RestoredFace]:
        """Smooth the corrections of one frame; same order, same crops, new corrections.

        Args:
            faces: the frame's faces, each track at most once. May be empty: tracks that are absent are aged.
            timestamp_ms: time of the frame; a step back or a gap over ``max_gap_ms`` forgets the past.
        """
        self._forget_stale([face.crop.track.track_id for face in faces], timestamp_ms)
        return [self._blend_face(face, timestamp_ms) for face in faces]

    def carry(self, crops: Sequence[FaceCrop], timestamp_ms: float) -> list[RestoredFace]:
        """Stand in for the restorer on a frame it skips: each track's last correction, moved along with the face.

        Where the gate says that the face has changed the carried correction fades to 0. A track without history gets
        a zero correction with confidence 0.
        """
        self._forget_stale([crop.track.track_id for crop in crops], timestamp_ms)
        return [self._carry_crop(crop, timestamp_ms) for crop in crops]

    def reset(self) -> None:
        """Forget every track (after a scene cut, or before another video)."""
        self._histories.clear()

    def _forget_stale(self, present: list[int], timestamp_ms: float) -> None:
        """Drop the histories that are too old, and count the frames in which the others were absent."""
        kept: dict[int, _History] = {}
        for track_id, history in self._histories.items():
            missed = history.missed if track_id in present else history.missed + 1
            in_time = 0.0 <= timestamp_ms - history.timestamp_ms <= self._options.max_gap_ms
            if in_time and missed <= self._options.max_missed:
                kept[track_id] = replace(history, missed=missed)
        self._histories = kept

    def _blend_face(self, face: RestoredFace, timestamp_ms: float) -> RestoredFace:
        grey = grey_of(face.crop.image)
        prediction = self._predict(face.crop, grey)
        if prediction is None:
            count = np.zeros((GATE_SIZE, GATE_SIZE), np.float32)
            correction = face.correction.copy()  # the restorer may reuse its batch; the history must not change
        else:
            lag = lag_gate(prediction.correction, face.correction, self._options)
            count = prediction.gate * lag * prediction.count
            correction = _mix(face.correction, prediction.correction, count / (count + 1.0))
        blended = replace(face, correction=correction)
        self._remember(blended, grey, count + 1.0, timestamp_ms)
        return blended

    def _carry_crop(self, crop: FaceCrop, timestamp_ms: float) -> RestoredFace:
        grey = grey_of(crop.image)
        prediction = self._predict(crop, grey)
        if prediction is None:
            return RestoredFace(crop, np.zeros(crop.image.shape, np.float32), confidence=0.0)
        nothing = np.zeros_like(prediction.correction)
        correction = _mix(nothing, prediction.correction, prediction.gate)
        carried = RestoredFace(crop, correction, self._histories[crop.track.track_id].confidence)
        self._remember(carried, grey, prediction.gate * prediction.count, timestamp_ms)
        return carried

    def _predict(self, crop: FaceCrop, grey: GreyImage) -> _Prediction | None:
        """Warp the track's last output into this crop; None without a usable history."""
        history = self._histories.get(crop.track.track_id)
        if history is None or history.image.shape != crop.image.shape:
            return None
        options, size = self._options, crop.image.shape[0]
        if np.array_equal(history.image, crop.image):  # a frozen picture stays frozen, bit for bit
            count = np.minimum(history.count, np.float32(options.still_count))
            return _Prediction(history.correction, np.ones((GATE_SIZE, GATE_SIZE), np.float32), count)
        flow = self._flow.flow(grey, history.grey)
        gate = photometric_gate(grey, warp_by_flow(history.grey, flow), options)
        shift = crop_shift_px(history.frame_to_crop, crop.frame_to_crop, size)
        still, whole = stillness(flow, shift, size, options)
        most = np.float32(options.max_count) + np.float32(options.still_count - options.max_count) * still
        count = np.minimum(warp_by_flow(history.count, flow), most)
        share = options.output_share + (1.0 - options.output_share) * whole
        return _Prediction(_move_output(history, crop, flow, share), gate, count)

    def _remember(self, face: RestoredFace, grey: GreyImage, count: FloatMap, timestamp_ms: float) -> None:
        crop = face.crop
        self._histories[crop.track.track_id] = _History(
            crop.image, crop.frame_to_crop, grey, face.correction, count, face.confidence, timestamp_ms
        )


def _move_output(history: _History, crop: FaceCrop, flow: FloatMap, share: float) -> FloatMap:
    """The last output in the present crop, as a correction of the present crop.

    What moves is correction + share * crop. At 0 the noise of the codec stays in the picture and the restorer's answer
    to it is averaged away; at 1 it is filtered like the correction, but past pixels are shown (docs/adr/0003). Cubic,
    since a bilinear warp that is repeated each frame loses twice the detail.
    """
    if share == 0.0:
        return warp_by_flow(history.correction, flow, cv2.INTER_CUBIC)
    output = cv2.scaleAdd(history.image.astype(np.float32), share, history.correction)
    moved = warp_by_flow(output, flow, cv2.INTER_CUBIC)
    return cv2.scaleAdd(crop.image.astype(np.float32), -share, moved)


def _mix(fresh: FloatMap, past: FloatMap, weight: FloatMap) -> FloatMap:
    """fresh + weight * (past - fresh): exact where both agree. ``weight`` is (GATE_SIZE, GATE_SIZE)."""
    size = fresh.shape[0]
    weight = cv2.resize(weight, (size, size), interpolation=cv2.INTER_LINEAR)
    step = cv2.multiply(cv2.subtract(past, fresh), cv2.merge([weight, weight, weight]))
    return cv2.add(fresh, step)
