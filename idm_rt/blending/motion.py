"""Motion between two aligned crops of one face, and how far to trust it. Sizes in px, flow in px of its own grid."""

from __future__ import annotations

from functools import lru_cache

import cv2
import numpy as np

from idm_rt.blending.options import BlendOptions
from idm_rt.types import RgbImage

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
    span = options.gate_closed - options.gate_open
    ramp = np.clip((error / np.float32(level) - np.float32(options.gate_open)) / np.float32(span), 0.0, 1.0)
    return 1.0 - ramp * ramp * (3.0 - 2.0 * ramp)
