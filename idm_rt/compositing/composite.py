"""Pastes the corrections of a frame's faces back into the frame."""

from __future__ import annotations

from collections.abc import Sequence

import cv2

from idm_rt.compositing.confidence import face_confidence
from idm_rt.compositing.mask import soft_mask
from idm_rt.compositing.options import CompositeOptions
from idm_rt.compositing.paste import Patch, add_patches, mask_box, settle_overlaps, warp_to_frame
from idm_rt.compositing.tone import match_tone
from idm_rt.types import RestoredFace, RgbImage, check_rgb


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
    made = (make_patch(face, strength, image.shape[:2], options) for face in faces)
    patches = [patch for patch in made if patch is not None]
    if not patches:
        return image
    return add_patches(image, [patch.box for patch in patches], settle_overlaps(patches))


def make_patch(
    face: RestoredFace, strength: float, frame_hw: tuple[int, int], options: CompositeOptions
) -> Patch | None:
    """What this face adds to the frame; None if that is nothing."""
    crop = face.crop
    weight = strength * face.confidence * face_confidence(crop.track, frame_hw, options)
    if weight <= 0.0:
        return None
    mask = soft_mask(crop, options)
    size = crop.image.shape[0]
    box = mask_box(mask, crop.frame_to_crop, size, frame_hw)
    if box[0] >= box[2] or box[1] >= box[3]:
        return None
    correction = match_tone(face.correction, mask, options.tone_sigma, options.tone_share)
    wide = cv2.resize(mask * weight, (size, size), interpolation=cv2.INTER_LINEAR)
    delta = cv2.multiply(correction, cv2.merge([wide, wide, wide]))
    return Patch(box, warp_to_frame(delta, crop.frame_to_crop, box), wide, crop.frame_to_crop)
