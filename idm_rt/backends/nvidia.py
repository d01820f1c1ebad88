"""The NVIDIA GPU of this machine, asked of the driver itself: no package is imported for the questions."""

from __future__ import annotations

import ctypes
import functools
import sys
from dataclasses import dataclass

_COMPUTE_CAPABILITY = (75, 76)  # CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MAJOR, _MINOR
_TEXT = 128  # bytes for a name
_DRIVER = "nvcuda.dll" if sys.platform == "win32" else "libcuda.so.1"
_NO_DEVICE = 100  # CUDA_ERROR_NO_DEVICE


@dataclass(frozen=True, slots=True)
class Gpu:
    """The first CUDA device of this process."""

    name: str  # as the driver calls it
    compute_capability: str  # such as "8.9"
    driver: str  # version of the driver, or "cuda 12.8" where only what it can do is known
    memory_mb: int


@functools.cache
def cuda_device_count() -> int:
    """CUDA devices the NVIDIA driver offers to this process; 0 without a driver (about 1 ms then)."""
    try:
        driver = _driver()
        count = ctypes.c_int(0)
        if driver.cuInit(0) != 0 or driver.cuDeviceGetCount(ctypes.byref(count)) != 0:
            return 0
        return count.value
    except (OSError, AttributeError):  # no driver library, or one without these functions
        return 0


def why_no_gpu() -> tuple[str, bool]:
    """Why ``cuda_device_count`` is 0, in words, and whether the machine looks as if it should have a GPU."""
    try:
        driver = _driver()
    except OSError:
        return f"NVIDIA driver library not present ({_DRIVER})", False
    try:
        status = int(driver.cuInit(0))
    except AttributeError:
        return f"{_DRIVER} is not an NVIDIA driver", True
    return f"the NVIDIA driver offers no device (cuInit returns {status})", status not in (0, _NO_DEVICE)


@functools.cache
def first_gpu() -> Gpu | None:
    """The GPU that engines run on; None when there is none."""
    if cuda_device_count() == 0:
        return None
    driver, device = _driver(), ctypes.c_int(0)
    name = ctypes.create_string_buffer(_TEXT)
    memory = ctypes.c_size_t(0)
    driver.cuDeviceGet(ctypes.byref(device), 0)
    driver.cuDeviceGetName(name, _TEXT, device)
    driver.cuDeviceTotalMem_v2(ctypes.byref(memory), device)
    capability = ".".join(str(_attribute(driver, device, number)) for number in _COMPUTE_CAPABILITY)
    return Gpu(name.value.decode(), capability, driver_version(), round(memory.value / 1e6))


def driver_version() -> str:
    """Version of the driver, such as "570.86.15", from its management library; else the CUDA version it offers."""
    text = ctypes.create_string_buffer(_TEXT)
    try:
        nvml = ctypes.CDLL("nvml.dll" if sys.platform == "win32" else "libnvidia-ml.so.1")
        if nvml.nvmlInit_v2() == 0 and nvml.nvmlSystemGetDriverVersion(text, _TEXT) == 0:
            return text.value.decode()
    except (OSError, AttributeError):  # containers often come without it
        pass
    number = ctypes.c_int(0)
    _driver().cuDriverGetVersion(ctypes.byref(number))
    return f"cuda {number.value // 1000}.{number.value % 1000 // 10}"


def _driver() -> ctypes.CDLL:
    return ctypes.CDLL(_DRIVER)


def _attribute(driver: ctypes.CDLL, device: ctypes.c_int, number: int) -> int:
    value = ctypes.c_int(0)
    driver.cuDeviceGetAttribute(ctypes.byref(value), number, device)
    return value.value
