"""Occlusions: a restorer that paints a face onto a hand is held back, a true correction is not."""

from __future__ import annotations

import cv2
import numpy as np
import pytest
from skimage import data

from idm_rt.compositing import CompositeOptions, composite
from idm_rt.compositing.evidence import evidence_gate
from idm_rt.compositing.mask import MASK_SIZE

OPTIONS = CompositeOptions()
HAND = (slice(160, 215), slice(85, 175))  # covers the mouth, in crop px
STRAIGHT = np.array([[1.0, 0, 0], [0, 1.0, 0]])


def sharp_face() -> np.ndarray:
    """The astronaut's face (public domain), cut so that eyes and mouth lie where the aligned crop has them."""
    return cv2.resize(data.astronaut()[60:180, 165:285], (256, 256), interpolation=cv2.INTER_CUBIC)


def blurred(image: np.ndarray, factor: int = 3) -> np.ndarray:
    small = cv2.resize(image, (256 // factor, 256 // factor), interpolation=cv2.INTER_AREA)
    return cv2.resize(small, (256, 256), interpolation=cv2.INTER_CUBIC)


@pytest.fixture(scope="module")
def case():
    """(crop, hidden crop, true correction): the hidden crop has a smooth skin-coloured patch over the mouth."""
    sharp = sharp_face()
    crop = blurred(sharp)
    hidden = crop.copy()
    shade = np.linspace(0, 12, 90, dtype=np.float32)[None, :, None]
    grain = np.random.default_rng(0).normal(0, 1.0, (55, 90, 1))
    hidden[HAND] = np.clip(np.array([205, 160, 140]) - shade + grain, 0, 255)
    return crop, hidden, sharp.astype(np.float32) - crop


def energy(values: np.ndarray) -> float:
    return float(np.mean(np.square(values.astype(float))))


def gated(crop: np.ndarray, correction: np.ndarray) -> np.ndarray:
    gate = evidence_gate(crop, correction, OPTIONS.evidence_gain, OPTIONS.evidence_floor)
    assert gate.shape == (MASK_SIZE, MASK_SIZE) and gate.min() >= 0.0 and gate.max() <= 1.0
    return correction * cv2.resize(gate, (256, 256))[..., None]


def test_a_true_correction_passes(case):
    crop, _, correction = case
    face = (slice(60, 220), slice(70, 190))
    assert energy(gated(crop, correction)[face]) > 0.9 * energy(correction[face])


def test_features_painted_onto_a_hand_are_held_back(case):
    crop, hidden, correction = case
    inner = (slice(172, 203), slice(97, 163))
    painted = gated(hidden, correction)[inner]
    assert energy(painted) < 0.4 * energy(correction[inner])
    assert energy(painted) < 0.4 * energy(gated(crop, correction)[inner])


def test_the_rest_of_an_occluded_face_is_still_restored(case):
    _, hidden, correction = case
    eyes = (slice(80, 130), slice(70, 190))
    assert energy(gated(hidden, correction)[eyes]) > 0.85 * energy(correction[eyes])


def test_end_to_end_the_hand_changes_little_and_the_eyes_change(make_face, case):
    _, hidden, correction = case
    changed = composite(hidden, [make_face(STRAIGHT, correction, hidden)], 1.0, OPTIONS).astype(int) - hidden
    free = CompositeOptions(evidence_floor=1e6)
    ungated = composite(hidden, [make_face(STRAIGHT, correction, hidden)], 1.0, free).astype(int) - hidden
    inner, eyes = (slice(172, 203), slice(97, 163)), (slice(80, 130), slice(80, 175))
    assert energy(changed[inner]) < 0.5 * energy(ungated[inner])
    assert energy(changed[eyes]) > 0.85 * energy(ungated[eyes])


def test_small_corrections_are_never_gated():
    flat = np.full((256, 256, 3), 100, np.uint8)
    small = np.full((256, 256, 3), 0.9, np.float32)
    assert evidence_gate(flat, small, OPTIONS.evidence_gain, OPTIONS.evidence_floor).min() == 1.0
