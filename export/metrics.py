"""Measures of a restored face against the truth; one function or small class each."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np

from idm_rt.errors import ModelError
from idm_rt.types import RgbImage

DLIB_FILES = ("shape_predictor_5_face_landmarks.dat", "dlib_face_recognition_resnet_model_v1.dat")


def psnr(a: RgbImage, b: RgbImage) -> float:
    """Peak signal-to-noise ratio, dB; 99 for equal pictures."""
    error = np.mean((a.astype(np.float32) - b.astype(np.float32)) ** 2)
    return 99.0 if error == 0 else float(10 * np.log10(255.0**2 / error))


def ssim(a: RgbImage, b: RgbImage) -> float:
    """Structural similarity (Wang et al., TIP 2004) as scikit-image computes it, Gaussian window, mean of RGB."""
    from skimage.metrics import structural_similarity

    return float(
        structural_similarity(a, b, channel_axis=2, gaussian_weights=True, sigma=1.5, use_sample_covariance=False)
    )


class DlibIdentity:
    """Distance of face embeddings by dlib's ResNet: the same person is mostly below 0.42, others above 0.47.

    A measure only: no training loss uses this network.
    """

    def __init__(self, folder: Path) -> None:
        """``folder`` holds dlib_face_recognition_resnet_model_v1.dat and shape_predictor_5_face_landmarks.dat.

        Raises:
            ModelError: dlib or a file is missing.
        """
        try:
            import dlib
        except ImportError as error:
            raise ModelError("the identity measure needs dlib; type: pip install dlib-bin") from error
        files = [folder / name for name in DLIB_FILES]
        for file in files:
            if not file.is_file():
                raise ModelError(f"{file} is missing; it comes with the PyPI package face-recognition-models")
        self._points = dlib.shape_predictor(str(files[0]))
        self._net = dlib.face_recognition_model_v1(str(files[1]))
        self._box = dlib.rectangle(46, 52, 209, 215)  # where a face lies in an aligned 256 px crop

    def embed(self, face: RgbImage) -> np.ndarray:
        """(128,) embedding of an aligned 256 px face."""
        shape = self._points(face, self._box)
        return np.array(self._net.compute_face_descriptor(face, shape))

    def distance(self, a: RgbImage, b: RgbImage) -> float:
        """Euclidean distance of the two embeddings."""
        return float(np.linalg.norm(self.embed(a) - self.embed(b)))


def denoise_and_sharpen(face: RgbImage) -> np.ndarray:
    """The classical baseline: OpenCV's non-local means (h = 5), then unsharp masking."""
    smooth = cv2.fastNlMeansDenoisingColored(face, None, 5, 5, 7, 15)
    return cv2.addWeighted(smooth, 1.8, cv2.GaussianBlur(smooth, (0, 0), 1.5), -0.8, 0)
