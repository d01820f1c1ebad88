"""The virtual camera device of the system, through pyvirtualcam. The only door to that package (GPL-2.0, optional)."""

from __future__ import annotations

from typing import Any

from idm_rt.errors import ConfigError, MediaError
from idm_rt.types import RgbImage
from idm_rt.virtual_devices import device_cure


class DeviceSink:
    """A v4l2loopback device (Linux) or the OBS virtual camera (macOS, Windows). For one thread.

    Open it once and keep it open: with ``exclusive_caps=1`` some versions of v4l2loopback cannot be opened again.
    """

    def __init__(
        self, size: tuple[int, int], fps: float, device: str | None = None, backend: str | None = None
    ) -> None:
        """Open it.

        Args:
            size: (width, height) px.
            fps: pictures per second, a hint for the programs that read it.
            device: its name, such as /dev/video10; None = the first that can be had.
            backend: pyvirtualcam's name of the kind of device; None = whatever works.

        Raises:
            ConfigError: pyvirtualcam is not installed.
            MediaError: there is no such device, or it refuses.
        """
        pyvirtualcam = _load()
        try:
            self._camera: Any = pyvirtualcam.Camera(
                *size, fps, fmt=pyvirtualcam.PixelFormat.RGB, device=device, backend=backend
            )
        except (RuntimeError, KeyError, OSError, ValueError) as error:
            raise MediaError(_no_device(device, error)) from error
        self.name = f"the virtual camera {self._camera.device}"

    def write(self, image: RgbImage, tick: int, count: int) -> None:
        """See ``Sink``; shown once."""
        try:
            self._camera.send(image)
        except (RuntimeError, OSError) as error:
            raise MediaError(f"{self.name} takes no more pictures ({_short(error)})") from error

    def close(self) -> None:
        """See ``Sink``."""
        self._camera.close()


def _load() -> Any:
    try:
        import pyvirtualcam
    except ImportError as error:
        if error.name == "pyvirtualcam":
            found = "pyvirtualcam is not installed"
        else:
            found = f"pyvirtualcam cannot be imported ({_short(error)})"
        raise ConfigError(
            f"{found}; pip install 'idm-rt[camera]', or name a file or pipe: --output call.mp4"
        ) from error
    return pyvirtualcam


def _no_device(device: str | None, error: Exception) -> str:
    wanted = f"the virtual camera {device}" if device else "a virtual camera"
    return f"{wanted} cannot be opened ({_short(error)}); {device_cure()}"


def _short(error: Exception) -> str:
    """The first sentence of an error, on one line."""
    return " ".join(str(error).split()).split(". ")[0].rstrip(".") or type(error).__name__
