"""Whether this machine has an NVIDIA GPU, asked of the driver itself: no package is imported for the question."""

from __future__ import annotations

import ctypes
import functools
import sys


@functools.cache
def cuda_device_count() -> int:
    """CUDA devices the NVIDIA driver offers to this process; 0 without a driver (about 1 ms then)."""
    try:
        driver = ctypes.CDLL("nvcuda.dll" if sys.platform == "win32" else "libcuda.so.1")
        count = ctypes.c_int(0)
        if driver.cuInit(0) != 0 or driver.cuDeviceGetCount(ctypes.byref(count)) != 0:
            return 0
        return count.value
    except (OSError, AttributeError):  # no driver library, or one without these functions
        return 0
