"""Pastes the corrections of a frame's faces back into the frame."""

from __future__ import annotations

from collections.abc import Sequence

import cv2
import numpy as np

from idm_rt.compositing.confidence import face_confidence
from idm_rt.compositing.evidence import evidence_gate
from idm_rt.compositing.mask import FloatMap, soft_mask
from idm_rt.compositing.options import CompositeOptions
from idm_rt.compositing.paste import (
    Box,
    Patch,
    add_patches,
    frame_box,
    settle_overlaps,
    support,
    warp_to_frame,
)
from idm_rt.compositing.sharpness import sharpness_fade
from idm_rt.compositing.tone import match_tone
from idm_rt.types import FloatArray, RestoredFace, RgbImage, check_rgb


def composite(
    image: RgbImage, faces: Sequence[RestoredFace], strength: float = 1.0, options: CompositeOptions | None = None
) -> RgbImage:
    """Add each face's correction to the frame, inside its soft mask only.

    Each correction is matched to the frame's tone and weighted by strength * confidence * mask. Adding the
    correction instead of pasting the restored crop keeps every detail of the camera that is finer than the crop
    (docs/adr/0002).

    Args:
        image: (H, W, 3) uint8 RGB; never changed.
        faces: may overlap or lie outside the frame; may be empty.
        strength: 0 (the same pixels) to 1 (the whole correction).
        options: None = defaults.

    Returns:
        (H, W, 3) uint8. Pixels outside the masks equal the input bit for bit; the very same array is returned when no
        face has any effect.

    Raises:
        ValueError: strength outside 0..1.
    """
    check_rgb(image)
    if not 0.0 <= strength <= 1.0:
        raise ValueError(f"strength is {strength!r}, expected 0..1")
    options = options or CompositeOptions()
    made = (make_patch(image, face, strength, options) for face in faces)
    patches = [patch for patch in made if patch is not None]
    if not patches:
        return image
    return add_patches(image, [patch.box for patch in patches], settle_overlaps(patches))


def make_patch(image: RgbImage, face: RestoredFace, strength: float, options: CompositeOptions) -> Patch | None:
    """What this face adds to the frame; None if that is nothing."""
    crop = face.crop
    frame_hw = image.shape[0], image.shape[1]
    weight = strength * face.confidence * face_confidence(crop.track, frame_hw, options)
    if weight <= 0.0:
        return None
    weight *= sharpness_fade(image, crop, options.sharp_oversampling, options.sharp_detail)
    mask = soft_mask(crop, options)
    window = support(mask, crop.image.shape[0])
    box = frame_box(window, crop.frame_to_crop, frame_hw)
    if weight <= 0.0 or box[0] >= box[2] or box[1] >= box[3]:
        return None
    correction = match_tone(face.correction, mask, options.tone_sigma, options.tone_share)
    gate = evidence_gate(crop.image, correction, options.evidence_gain, options.evidence_floor)
    return _place(correction, mask * gate * np.float32(weight), crop.frame_to_crop, window, box)


def _place(correction: FloatMap, weights: FloatMap, frame_to_crop: FloatArray, window: Box, box: Box) -> Patch:
    """Weight the correction in the mask's window and move it into the frame's box."""
    x0, y0, x1, y1 = window
    size = correction.shape[0]
    wide = cv2.resize(weights, (size, size), interpolation=cv2.INTER_LINEAR)[y0:y1, x0:x1]
    delta = cv2.multiply(correction[y0:y1, x0:x1], cv2.merge([wide, wide, wide]))
    to_window = frame_to_crop - np.array([[0.0, 0.0, x0], [0.0, 0.0, y0]])
    return Patch(box, warp_to_frame(delta, to_window, box), wide, to_window)
