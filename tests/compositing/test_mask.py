from __future__ import annotations

import cv2
import numpy as np
import pytest

from idm_rt.compositing import CompositeOptions
from idm_rt.compositing.mask import MASK_SIZE, face_outline, soft_mask
from idm_rt.landmarks import FACE_OVAL

STRAIGHT = np.array([[1.0, 0, 0], [0, 1.0, 0]])


def cell(x_crop: float, y_crop: float) -> tuple[int, int]:
    """Row and column of the mask cell at a crop position."""
    return round((y_crop + 0.5) / 4 - 0.5), round((x_crop + 0.5) / 4 - 0.5)


@pytest.mark.parametrize(
    ("x", "y", "low", "high"),
    [
        (127, 140, 1.0, 1.0),  # nose
        (90, 107, 1.0, 1.0),  # eyes
        (165, 107, 1.0, 1.0),
        (127, 185, 1.0, 1.0),  # mouth
        (127, 45, 0.5, 1.0),  # above the oval's top (48): the forehead is raised
        (127, 12, 0.0, 0.0),  # hair
        (30, 140, 0.0, 0.0),  # background beside the face
        (225, 140, 0.0, 0.0),
        (60, 140, 0.1, 0.9),  # the soft edge
        (127, 250, 0.0, 0.02),  # below the chin
    ],
)
def test_the_face_is_in_and_what_is_around_it_is_out(make_face, x, y, low, high):
    value = soft_mask(make_face(STRAIGHT).crop, CompositeOptions())[cell(x, y)]
    assert low <= value <= high


def test_values_lie_in_0_1_and_the_border_is_0(make_face):
    # A face five times as large as its crop fills it: only the border fade ends the mask.
    crop = make_face(STRAIGHT).crop
    centre = crop.track.landmarks_xy.mean(axis=0)
    object.__setattr__(crop.track, "landmarks_xy", (crop.track.landmarks_xy - centre) * 5 + centre)
    mask = soft_mask(crop, CompositeOptions())
    assert mask.dtype == np.float32 and mask.shape == (MASK_SIZE, MASK_SIZE)
    assert mask.min() == 0.0 and mask.max() == 1.0
    for edge in (mask[:2], mask[-2:], mask[:, :2].T, mask[:, -2:].T):
        assert not edge.any()
    assert mask[MASK_SIZE // 2, 10:-10].min() == 1.0


def test_the_mask_has_no_hard_edge(make_face):
    mask = cv2.resize(soft_mask(make_face(STRAIGHT).crop, CompositeOptions()), (256, 256))
    assert np.abs(np.diff(mask, axis=0)).max() < 0.1
    assert np.abs(np.diff(mask, axis=1)).max() < 0.1


def test_the_mask_moves_smoothly_with_the_face(make_face):
    """A shift of a twentieth of a crop px changes no mask cell by more than a few levels: no crawling edge."""
    masks = [soft_mask(make_face(STRAIGHT).crop, CompositeOptions())]
    crop = make_face(STRAIGHT).crop
    object.__setattr__(crop.track, "landmarks_xy", crop.track.landmarks_xy + 0.05)
    masks.append(soft_mask(crop, CompositeOptions()))
    assert 0.0 < np.abs(masks[1] - masks[0]).max() < 0.03


def test_the_mask_does_not_depend_on_where_the_face_is_in_the_frame(make_face):
    turned = np.array([[0.8, -0.6, 40.0], [0.6, 0.8, -90.0]])
    straight, moved = (soft_mask(make_face(m).crop, CompositeOptions()) for m in (STRAIGHT, turned))
    np.testing.assert_allclose(straight, moved, atol=0.02)


def test_only_the_upper_half_of_the_outline_is_raised(make_face):
    crop = make_face(STRAIGHT).crop
    plain, raised = face_outline(crop, 0.0), face_outline(crop, 0.2)
    height = np.ptp(plain[:, 1])
    lift = plain[:, 1] - raised[:, 1]
    assert lift.max() == pytest.approx(0.2 * height)
    assert np.all(lift[plain[:, 1] > plain[:, 1].mean() + 1] == 0)
    assert np.all(plain[:, 0] == raised[:, 0]) and len(plain) == len(FACE_OVAL)


def test_a_wild_outline_is_no_error(make_face):
    crop = make_face(STRAIGHT).crop
    object.__setattr__(crop.track, "landmarks_xy", crop.track.landmarks_xy * 1e7 - 1e9)
    mask = soft_mask(crop, CompositeOptions())
    assert np.isfinite(mask).all() and 0.0 <= mask.min() <= mask.max() <= 1.0
    assert not mask[:2].any() and not mask[:, -2:].any()
