"""Motion between two aligned crops of one face, and how far to trust it. Sizes in px, flow in px of its own grid."""

from __future__ import annotations

from functools import lru_cache

import cv2
import numpy as np

from idm_rt.blending.options import BlendOptions
from idm_rt.geometry import compose, invert_affine, transform_points
from idm_rt.types import FloatArray, RgbImage

FLOW_SIZE = 128  # px side of the pictures the flow is found on
GATE_SIZE = 64  # px side of the gate's and the count's grid

# The part of the crop that is face in any pose: the noise level is the median disagreement in it.
_FACE_ROWS = slice(GATE_SIZE // 4, GATE_SIZE * 13 // 16)
_FACE_COLUMNS = slice(GATE_SIZE // 4, GATE_SIZE * 3 // 4)

FloatMap = np.ndarray  # float32; cv2 types its results no closer
GreyImage = np.ndarray  # uint8, one channel


class FlowEstimator:
    """Dense inverse-search optical flow (Kroeger et al., "Fast Optical Flow using DIS", ECCV 2016) on grey crops.

    On five clips at call bit rates the flow left 1.1-2.0 grey levels between neighbouring aligned crops where a
    warp by the tracked landmarks left 1.2-9.0: landmarks lag in fast motion. Ultrafast preset, finest scale one
    octave down: 0.65 ms for 128 px on one core; twice that effort gains 3 %.
    """

    def __init__(self) -> None:
        self._dis = cv2.DISOpticalFlow.create(cv2.DISOPTICAL_FLOW_PRESET_ULTRAFAST)
        self._dis.setFinestScale(1)

    def flow(self, grey: GreyImage, previous: GreyImage) -> FloatMap:
        """Where each pixel of ``grey`` was in ``previous``: (FLOW_SIZE, FLOW_SIZE, 2) px, to be added to x, y."""
        return self._dis.calc(grey, previous, None)  # type: ignore[call-overload, unused-ignore]  # None is allowed


def grey_of(crop: RgbImage) -> GreyImage:
    """(S, S, 3) crop -> (FLOW_SIZE, FLOW_SIZE) grey picture."""
    small = cv2.resize(crop, (FLOW_SIZE, FLOW_SIZE), interpolation=cv2.INTER_AREA)
    return cv2.cvtColor(small, cv2.COLOR_RGB2GRAY)


@lru_cache(maxsize=8)
def _pixel_grid(size: int) -> FloatMap:
    rows, columns = np.mgrid[0:size, 0:size].astype(np.float32)
    grid = np.dstack([columns, rows])
    grid.setflags(write=False)
    return grid


def warp_by_flow(image: np.ndarray, flow: FloatMap, interpolation: int = cv2.INTER_LINEAR) -> np.ndarray:
    """Pull a square picture (n, n[, C]) of the previous frame into the present one, replicated at the border.

    The flow may live on another square grid; it is resized and scaled to n.
    """
    size = image.shape[0]
    if flow.shape[0] != size:
        factor = size / flow.shape[0]
        flow = cv2.resize(flow, (size, size), interpolation=cv2.INTER_LINEAR) * np.float32(factor)
    positions = cv2.add(_pixel_grid(size), flow)
    return cv2.remap(  # type: ignore[call-overload, unused-ignore]  # some stubs do not know that the second map may be None
        image, positions, None, interpolation, borderMode=cv2.BORDER_REPLICATE
    )


def fall(values: FloatMap, low: float, high: float) -> FloatMap:
    """1 up to ``low``, 0 from ``high``, the cubic between."""
    ramp = np.clip((values - np.float32(low)) / np.float32(high - low), 0.0, 1.0)
    return 1.0 - ramp * ramp * (3.0 - 2.0 * ramp)


def crop_shift_px(before: FloatArray, now: FloatArray, size: int) -> float:
    """How far a crop's own grid has moved over the frame since, mean over the crop, crop px.

    Args:
        before: (2, 3) frame-to-crop matrix of the crop before.
        now: that of the present one.
        size: side of both, px.
    """
    places = _pixel_grid(3).reshape(-1, 2).astype(np.float64) * (size / 4) + size / 4
    moved = transform_points(compose(now, invert_affine(before)), places)
    return float(np.linalg.norm(moved - places, axis=1).mean())


def stillness(flow: FloatMap, shift_px: float, size: int, options: BlendOptions) -> tuple[FloatMap, float]:
    """How still each part of a crop stands, and how still the face does as a whole: 1 still, 0 moving.

    Noise makes the flow of a still face tremble by 0.1 px; its means over 5 cells of the gate's grid tremble less. The
    face is as still as the least still quarter of it allows: a blink does not count, a nod does.

    Args:
        flow: as ``FlowEstimator.flow`` gives it.
        shift_px: see ``crop_shift_px``; what follows a moving head perfectly has no flow.
        size: side of the crop, px.
    """
    smooth = cv2.blur(cv2.resize(flow, (GATE_SIZE, GATE_SIZE), interpolation=cv2.INTER_AREA), (5, 5))
    motion = np.hypot(smooth[..., 0], smooth[..., 1]) * np.float32(size / FLOW_SIZE) + np.float32(shift_px)
    still = fall(motion, options.still_px, options.moving_px)
    whole = float(np.percentile(still[_FACE_ROWS, _FACE_COLUMNS], 25))
    return np.minimum(still, np.float32(whole)), whole


def lag_gate(past: FloatMap, fresh: FloatMap, options: BlendOptions) -> FloatMap:
    """1 where the local means of two corrections (S, S, 3) agree, 0 where the past one lags behind the fresh one.

    A shadow that moves slowly changes less from frame to frame than noise does, so ``photometric_gate`` lets it pass;
    the history, which stands for many frames, would fall behind by as many times that.

    Returns:
        (GATE_SIZE, GATE_SIZE) float32 in 0..1.
    """
    difference = cv2.cvtColor(cv2.subtract(past, fresh), cv2.COLOR_RGB2GRAY)
    small = cv2.resize(difference, (GATE_SIZE, GATE_SIZE), interpolation=cv2.INTER_AREA)
    return fall(np.abs(cv2.blur(small, (5, 5))), options.lag_open, options.lag_closed)


def photometric_gate(grey: GreyImage, warped_previous: GreyImage, options: BlendOptions) -> FloatMap:
    """1 where the motion-compensated previous crop agrees with the present one within its noise, 0 where not.

    Returns:
        (GATE_SIZE, GATE_SIZE) float32 in 0..1, a smooth step between ``gate_open`` and ``gate_closed`` times the
        noise level. The level is the median disagreement in the face (robust: eyes and mouth move, cheeks do not),
        held between ``noise_floor`` and ``noise_cap``.
    """
    difference = cv2.absdiff(grey, warped_previous).astype(np.float32)
    error = cv2.blur(cv2.resize(difference, (GATE_SIZE, GATE_SIZE), interpolation=cv2.INTER_AREA), (3, 3))
    level = float(np.median(error[_FACE_ROWS, _FACE_COLUMNS]))
    level = min(max(level, options.noise_floor), options.noise_cap)
    return fall(error / np.float32(level), options.gate_open, options.gate_closed)
