"""The no-reference score: its arithmetic on a regression small enough to work out, and its sense on a real picture."""

from __future__ import annotations

import os
from pathlib import Path

import cv2
import numpy as np
import pytest
from skimage.data import astronaut

from export.brisque import HIGH, LOW, Brisque
from idm_rt.errors import ModelError

SHARED = Path(os.environ.get("IDM_RT_SHARED", "../shared")) / "weights" / "brisque" / "svm.txt"
HEADER = "svm_type epsilon_svr\nkernel_type rbf\ngamma 0.05\nrho -3.5\nSV\n"


def test_a_picture_whose_features_are_the_support_vector_scores_its_weight(tmp_path):
    picture = astronaut()
    features = cv2.quality.QualityBRISQUE_computeFeatures(np.ascontiguousarray(picture[..., ::-1])).ravel()
    scaled = 2 * (features - LOW) / (HIGH - LOW) - 1
    row = " ".join(f"{i + 1}:{value!r}" for i, value in enumerate(scaled.tolist()))
    (tmp_path / "svm.txt").write_text(f"{HEADER}7 {row}\n")
    assert Brisque(tmp_path / "svm.txt")(picture) == pytest.approx(7 + 3.5, abs=1e-6)


@pytest.mark.parametrize(
    ("text", "message"),
    [("svm_type c_svc\nkernel_type rbf\nSV\n", "epsilon-SVR"), (HEADER + "1 1:0 2:0\n", "features, expected")],
)
def test_another_file_is_refused(tmp_path, text, message):
    (tmp_path / "svm.txt").write_text(text)
    with pytest.raises(ModelError, match=message):
        Brisque(tmp_path / "svm.txt")
    with pytest.raises(ModelError, match="is missing"):
        Brisque(tmp_path / "none.txt")


@pytest.mark.skipif(not SHARED.is_file(), reason="needs BRISQUE's regression (IDM_RT_SHARED)")
def test_blur_noise_and_blocks_score_worse():
    score, picture = Brisque(SHARED), astronaut()
    noise = np.random.default_rng(0).normal(0, 20, picture.shape)
    worse = [
        cv2.GaussianBlur(picture, (0, 0), 2),
        np.clip(picture + noise, 0, 255).astype(np.uint8),
        cv2.imdecode(cv2.imencode(".jpg", picture, [cv2.IMWRITE_JPEG_QUALITY, 10])[1], cv2.IMREAD_COLOR),
    ]
    assert score(picture) < min(score(p) for p in worse) - 10
