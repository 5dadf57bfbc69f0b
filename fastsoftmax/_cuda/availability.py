"""Whether the CUDA backend can run here, found out without importing a CUDA package."""

import ctypes
import sys
from importlib.metadata import PackageNotFoundError, version

_INSTALL = "pip install 'fastsoftmax[cuda]' (CUDA 13) or 'fastsoftmax[cuda12]'"


def reason_unavailable():
    """Why no kernel can run, or None."""
    for package in ("numba-cuda", "cuda-core"):
        if not _installed(package):
            return f"{package} is not installed: {_INSTALL}"
    return _reason_without_device()


def _installed(package):
    try:
        return bool(version(package))
    except PackageNotFoundError:
        return False


def _reason_without_device():
    name = "nvcuda.dll" if sys.platform == "win32" else "libcuda.so.1"
    try:
        driver = ctypes.CDLL(name)
    except OSError:
        return f"no NVIDIA driver on this machine ({name} cannot be loaded)"
    count = ctypes.c_int(0)
    if (error := driver.cuInit(0)) or (error := driver.cuDeviceGetCount(ctypes.byref(count))):
        return f"the NVIDIA driver gives no device (error {error})"
    return None if count.value else "the NVIDIA driver sees no device"
