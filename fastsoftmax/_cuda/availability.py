"""Whether the CUDA backend can run here: no CUDA package is imported, and CUDA is not initialised.

A process that has initialised CUDA has no use of it in its forked children, so devices are asked of NVML.
"""

import ctypes
import os
import re
import sys
from importlib.metadata import PackageNotFoundError, version

from fastsoftmax._cuda.plan import LOWEST_CAPABILITY

_INSTALL = "pip install 'fastsoftmax[cuda]' (CUDA 13) or 'fastsoftmax[cuda12]'"

# What the code needs: Kernel.handle of cuda-core, launch_bounds of numba-cuda.
NEEDED = {"numba-cuda": (0, 22), "cuda-core": (0, 6)}


def reason_unavailable():
    """Why no kernel can run, or None."""
    for package, needed in NEEDED.items():
        if (found := _installed(package)) is None:
            return f"{package} is not installed: {_INSTALL}"
        if tuple(map(int, re.findall(r"\d+", found)[: len(needed)])) < needed:
            return f"{package} {found} is older than {'.'.join(map(str, needed))}: {_INSTALL}"
    return _reason_without_device()


def _installed(package):
    try:
        return version(package)
    except PackageNotFoundError:
        return None


def _reason_without_device():
    windows = sys.platform == "win32"
    if _library(name := "nvcuda.dll" if windows else "libcuda.so.1") is None:
        return f"no NVIDIA driver on this machine ({name} cannot be loaded)"
    if os.environ.get("CUDA_VISIBLE_DEVICES", "0") in ("", "-1"):
        return "CUDA_VISIBLE_DEVICES hides every device"
    nvml = _library("nvml.dll" if windows else "libnvidia-ml.so.1")
    if nvml is None:  # as in containers without the driver's utilities
        return None
    if error := nvml.nvmlInit_v2():
        return f"the NVIDIA driver gives no device (NVML error {error})"
    try:
        return _reason_of_capabilities(list(_capabilities(nvml)))
    finally:
        nvml.nvmlShutdown()


def _library(name):
    try:
        return ctypes.CDLL(name)
    except OSError:
        return None


def _capabilities(nvml):
    count, device, major, minor = ctypes.c_uint(0), ctypes.c_void_p(), ctypes.c_int(0), ctypes.c_int(0)
    nvml.nvmlDeviceGetCount_v2(ctypes.byref(count))
    for i in range(count.value):
        nvml.nvmlDeviceGetHandleByIndex_v2(i, ctypes.byref(device))
        nvml.nvmlDeviceGetCudaComputeCapability(device, ctypes.byref(major), ctypes.byref(minor))
        yield major.value, minor.value


def _reason_of_capabilities(found):
    if not found:
        return "the NVIDIA driver sees no device"
    if max(found) >= LOWEST_CAPABILITY:
        return None
    return "compute capability {}.{} is needed, the device has {}.{}".format(*LOWEST_CAPABILITY, *max(found))
