"""What a video call does to a face, made from one sharp photo: camera, then a real encoder, then the crop.

The face is rendered at the size that it has in a call frame, moves a little over a few frames, is blurred and made
noisy as a camera does, scaled to the call's resolution, encoded and decoded for real, and cut out again exactly as the
run time does it (``idm_rt.geometry``). The motion is known, so the clean and the degraded crop match to the pixel.
"""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np

from export.blind import BlindRange, degrade_blind
from export.codecs import CODECS, encode_decode, jpeg_round_trip
from idm_rt.geometry import CROP_SIZE, compose, crop_face, invert_affine
from idm_rt.types import FloatArray, RgbImage

Rng = np.random.Generator


@dataclass(frozen=True, slots=True)
class Level:
    """How bad a call is: every property draws its own badness uniformly from [low, high], 0 good, 1 terrible."""

    low: float
    high: float
    clean_share: float = 0.0  # share of samples that are not degraded at all

    def draw(self, rng: Rng) -> float:
        """One badness."""
        return float(rng.uniform(self.low, self.high))


CALL_LEVELS = {
    "call-mild": Level(0.25, 0.55),
    "call-medium": Level(0.48, 0.82),
    "call-hard": Level(0.68, 1.0),
    "train": Level(0.08, 1.0, clean_share=0.08),
}
LEVELS: dict[str, Level | BlindRange] = {**CALL_LEVELS, "bfr": BlindRange()}


@dataclass(frozen=True, slots=True)
class FacePair:
    """What training sees: the truth and what the call made of it, both (256, 256, 3) uint8 RGB."""

    clean: RgbImage
    degraded: RgbImage
    previous: RgbImage  # the frame before as the call showed it, cut so that the face lies where it lies in the others


def degrade(canvas: RgbImage, level: Level | BlindRange, rng: Rng, augment: bool = True) -> FacePair:
    """Degrade one prepared face.

    Args:
        canvas: (384, 384, 3) from ``export.prepare``.
        level: how bad the call is, or the published range without a call.
        rng: decides everything; equal generators give equal pairs.
        augment: also mirror, shift, turn, scale and relight (the truth too).
    """
    canvas_to_crop = crop_matrix(canvas.shape[0], rng if augment else None)
    if augment:
        canvas = relight(canvas[:, ::-1] if rng.random() < 0.5 else canvas, rng)
    clean = crop_face(canvas, canvas_to_crop)
    if isinstance(level, BlindRange):
        degraded = crop_face(degrade_blind(canvas, level, rng), canvas_to_crop)
        return FacePair(clean, degraded, degraded)
    if rng.random() < level.clean_share:
        return FacePair(clean, clean.copy(), clean.copy())
    return FacePair(clean, *through_call(canvas, canvas_to_crop, level, rng))


def crop_matrix(canvas_size: int, rng: Rng | None) -> FloatArray:
    """Canvas-to-crop matrix, (2, 3); with a generator, as inexact as real landmarks are."""
    angle, scale, shift = 0.0, 1.0, np.zeros(2)
    if rng is not None:
        angle = rng.normal(0, 3.0)
        scale = float(np.exp(rng.normal(0, 0.05)))
        shift = rng.normal(0, 4.0, 2)
    centre = (canvas_size - 1) / 2
    matrix = np.asarray(cv2.getRotationMatrix2D((centre, centre), angle, scale), dtype=np.float64)
    matrix[:, 2] += shift + (CROP_SIZE - canvas_size) / 2
    return matrix


def relight(image: np.ndarray, rng: Rng) -> np.ndarray:
    """Exposure, contrast and white balance. Applied to the truth as well: the restorer must not learn to recolour."""
    gamma = np.exp(rng.normal(0, 0.25))
    gain = np.exp(rng.normal(0, 0.10)) * np.exp(rng.normal(0, 0.06, 3))
    ramp = np.linspace(0, 1, 256)[:, None] ** gamma * gain
    table = np.clip(ramp * 255, 0, 255).astype(np.uint8)[None]  # (1, 256, 3)
    return cv2.LUT(np.ascontiguousarray(image), table)


def through_call(
    canvas: np.ndarray, canvas_to_crop: FloatArray, level: Level, rng: Rng
) -> tuple[np.ndarray, np.ndarray]:
    """The crops of the last of a few frames of a call that shows the canvas, and of the one before it."""
    side = between(300.0, 72.0, level.draw(rng))  # px of the crop's side in the call frame
    scale = side / CROP_SIZE
    frames, motions = render_frames(canvas, scale, int(rng.integers(1, 6)), rng)
    frames = [camera(frame, plan, rng) for plan in [CameraPlan.draw(level, side, rng)] for frame in frames]
    frames = network(frames, level, rng)
    crops = [
        crop_face(frame, compose(canvas_to_crop, invert_affine(compose(motion, scaling(scale)))))
        for frame, motion in zip(frames[-2:], motions[-2:], strict=True)
    ]
    return crops[-1], crops[0]


def scaling(factor: float) -> FloatArray:
    """Scaling that keeps pixel centres: x -> (x + 0.5) factor - 0.5."""
    offset = 0.5 * factor - 0.5
    return np.array([[factor, 0, offset], [0, factor, offset]])


def between(good: float, bad: float, badness: float) -> float:
    """Linear between a good and a bad value."""
    return good + (bad - good) * badness


def render_frames(canvas: np.ndarray, scale: float, count: int, rng: Rng) -> tuple[list[np.ndarray], list[FloatArray]]:
    """``count`` frames of a slowly moving head and the (2, 3) motion of each, in frame px."""
    size = max(16, round(canvas.shape[0] * scale / 2) * 2)
    still = cv2.warpAffine(
        canvas if scale >= 1 else cv2.GaussianBlur(canvas, (0, 0), 0.45 / scale),
        scaling(scale),
        (size, size),
        flags=cv2.INTER_CUBIC,
        borderMode=cv2.BORDER_REFLECT_101,
    )
    speed = rng.exponential(0.004) * size
    direction = rng.normal(0, 1, 2)
    turn = rng.normal(0, 0.4)
    motions: list[FloatArray] = []
    for index in range(count):
        back = index - (count - 1)  # the last frame is at rest, so that the truth need not be resampled
        matrix = np.asarray(cv2.getRotationMatrix2D((size / 2, size / 2), turn * back, 1.0), dtype=np.float64)
        matrix[:, 2] += direction * speed * back + (rng.normal(0, 0.3, 2) if back else 0.0)
        motions.append(matrix)
    warped = [
        cv2.warpAffine(still, m, (size, size), flags=cv2.INTER_LINEAR, borderMode=cv2.BORDER_REFLECT_101)
        for m in motions
    ]
    return warped, motions


@dataclass(frozen=True, slots=True)
class CameraPlan:
    """The camera's faults, the same for all frames of a shot."""

    defocus_px: float  # sigma
    motion_px: float  # length of the motion blur
    motion_deg: float
    shot_noise: float  # noise at white, 8-bit steps
    read_noise: float  # noise at black, 8-bit steps
    noise_grain_px: float  # sigma of the noise's own blur (demosaicking)
    smear: bool  # in-camera noise reduction
    sharpening: float  # unsharp masking, 0 = none
    jpeg: int  # MJPEG quality, 0 = none

    @classmethod
    def draw(cls, level: Level, side: float, rng: Rng) -> CameraPlan:
        """Draw a camera; ``side`` is the face crop's side in frame px."""
        dark = level.draw(rng) * rng.random()
        return cls(
            defocus_px=between(0.0, 2.2, level.draw(rng) * rng.random()) * side / 180,
            motion_px=between(0.0, 9.0, level.draw(rng)) * side / 180 if rng.random() < 0.25 else 0.0,
            motion_deg=float(rng.uniform(0, 180)),
            shot_noise=between(0.5, 10.0, dark),
            read_noise=between(0.5, 14.0, dark),
            noise_grain_px=float(rng.choice([0.0, 0.5, 0.8])),
            smear=bool(rng.random() < 0.3 * level.draw(rng) + 0.05),
            sharpening=float(rng.uniform(0.3, 1.5)) if rng.random() < 0.25 else 0.0,
            jpeg=int(rng.integers(40, 95)) if rng.random() < 0.2 else 0,
        )


def camera(image: np.ndarray, plan: CameraPlan, rng: Rng) -> np.ndarray:
    """One frame as the camera delivers it."""
    picture: np.ndarray = image.astype(np.float32)
    if plan.defocus_px > 0.2:
        picture = cv2.GaussianBlur(picture, (0, 0), plan.defocus_px)
    if plan.motion_px > 1.0:
        picture = cv2.filter2D(picture, -1, motion_kernel(plan.motion_px, plan.motion_deg))
    picture += sensor_noise(picture, plan, rng)
    if plan.smear:
        picture = cv2.bilateralFilter(np.clip(picture, 0, 255), 5, 24, 2)
    if plan.sharpening:
        picture += plan.sharpening * (picture - cv2.GaussianBlur(picture, (0, 0), 1.2))
    frame = np.clip(picture + 0.5, 0, 255).astype(np.uint8)
    return jpeg_round_trip(frame, plan.jpeg) if plan.jpeg else frame


def motion_kernel(length_px: float, angle_deg: float) -> np.ndarray:
    """Line kernel that sums to 1."""
    size = int(np.ceil(length_px)) | 1
    kernel: np.ndarray = np.zeros((size, size), np.float32)
    kernel[size // 2] = 1.0
    turn = cv2.getRotationMatrix2D(((size - 1) / 2, (size - 1) / 2), angle_deg, 1.0)
    kernel = cv2.warpAffine(kernel, turn, (size, size))
    return kernel / kernel.sum()


def sensor_noise(picture: np.ndarray, plan: CameraPlan, rng: Rng) -> np.ndarray:
    """Signal-dependent noise, (H, W, 3) float32: read noise stays when it is dark, where gamma magnifies it."""
    light = picture.mean(axis=2, keepdims=True) / 255.0
    sigma = plan.read_noise * (1.0 - light) + plan.shot_noise * np.sqrt(np.clip(light, 0, 1))
    noise: np.ndarray = rng.standard_normal(picture.shape, dtype=np.float32)
    if plan.noise_grain_px:
        noise = cv2.GaussianBlur(noise, (0, 0), plan.noise_grain_px) * (1.0 + 2.2 * plan.noise_grain_px)
    return noise * sigma


def network(frames: list[np.ndarray], level: Level, rng: Rng) -> list[np.ndarray]:
    """Scale to the call's resolution, encode and decode for real, scale back."""
    height, width = frames[0].shape[:2]
    shrink = between(1.0, 2.2, level.draw(rng)) if rng.random() < 0.5 else 1.0
    if shrink > 1.0:
        size = (max(16, round(width / shrink / 2) * 2), max(16, round(height / shrink / 2) * 2))
        frames = [cv2.resize(frame, size, interpolation=cv2.INTER_AREA) for frame in frames]
    codec = CODECS[str(rng.choice(["vp8", "vp9", "h264", "av1"], p=[0.35, 0.2, 0.3, 0.15]))]
    quantiser = between(0.1, 0.95, level.draw(rng))
    frames = encode_decode([pad_for_codec(frame) for frame in frames], codec, quantiser)
    if shrink > 1.0:
        how = int(rng.choice([cv2.INTER_LINEAR, cv2.INTER_CUBIC]))
        frames = [cv2.resize(f[: size[1], : size[0]], (width, height), interpolation=how) for f in frames]
    return [frame[:height, :width] for frame in frames]


def pad_for_codec(frame: np.ndarray, smallest: int = 64) -> np.ndarray:
    """Mirror a frame out to at least 64 px and even sides (libsvtav1 refuses less)."""
    height, width = frame.shape[:2]
    bottom = max(smallest, height + height % 2) - height
    right = max(smallest, width + width % 2) - width
    if not bottom and not right:
        return frame
    return cv2.copyMakeBorder(frame, 0, bottom, 0, right, cv2.BORDER_REFLECT_101)
