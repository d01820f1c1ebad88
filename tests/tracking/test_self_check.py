"""The self-check: right nets pass, nets that see the wrong thing are named."""

from __future__ import annotations

import numpy as np
import pytest

from idm_rt.errors import EngineError
from idm_rt.landmarks import LEFT_EYE, LEFT_MOUTH_CORNER, RIGHT_EYE, RIGHT_MOUTH_CORNER
from idm_rt.tracking.records import FaceBox, RawFace
from idm_rt.tracking.self_check import check_nets, drawn_face


class Detector:
    def __init__(self, faces: int = 1, *, blind: bool = False) -> None:
        self.faces, self.blind = faces, blind

    def detect(self, image: np.ndarray) -> list[FaceBox]:
        seen = image.std() > 1 or self.blind
        return [FaceBox(np.array([60.0, 80.0, 198.0, 218.0]), 0.9)] * (self.faces if seen else 0)

    def close(self) -> None: ...


class Mesh:
    """Puts eyes and mouth where they are drawn, give or take ``off`` px."""

    def __init__(self, off: float = 0.0, *, blind: bool = False) -> None:
        self.off, self.blind = off, blind

    def detect(self, image: np.ndarray, around: FaceBox) -> list[RawFace]:
        if image.std() < 1 and not self.blind:
            return []
        middle = (around.box_xyxy[:2] + around.box_xyxy[2:]) / 2
        xy = np.random.default_rng(0).uniform(-70, 70, (478, 2)) + middle
        drawn = middle + [-1, -21]  # the box's centre is (129, 149), the drawing's (128, 128)
        xy[list(LEFT_EYE)], xy[list(RIGHT_EYE)] = drawn + [-30, -20], drawn + [30, -20]
        xy[LEFT_MOUTH_CORNER], xy[RIGHT_MOUTH_CORNER] = drawn + [-20, 50], drawn + [20, 50]
        return [RawFace(xy + self.off, 0.0, 0.0)]

    def close(self) -> None: ...


def test_nets_that_see_the_drawing_pass() -> None:
    check_nets(Detector(), Mesh(off=3.0))


@pytest.mark.parametrize(
    ("detector", "mesh", "says"),
    [
        (Detector(0), Mesh(), "sees 0 faces"),
        (Detector(2), Mesh(), "sees 2 faces"),
        (Detector(blind=True), Mesh(), "0 in none"),
        (Detector(), Mesh(blind=True), "empty picture"),
        (Detector(), Mesh(off=9.0), r"9\.\d px beside"),
    ],
)
def test_nets_that_see_something_else_are_refused(detector: Detector, mesh: Mesh, says: str) -> None:
    with pytest.raises(EngineError, match=says):
        check_nets(detector, mesh)


def test_drawing_is_symmetric() -> None:
    picture = drawn_face()
    assert np.array_equal(picture[:, 1:], picture[:, :0:-1])
