"""The GPU through cuda.core: kernels compiled once and kept, launches, and memory for NumPy arrays.

The tests have a driver of the same methods that interprets kernels in host memory.
"""

import threading
from functools import cache, lru_cache

from cuda.bindings import driver as cu
from cuda.core import Device, LaunchConfig, Stream, launch

from fastsoftmax._cuda.compiler import load

_LEGACY_STREAM = 1  # the handle that names the default stream; frameworks give 0


class Driver:
    """Launches kernels on the current device, on the stream that a caller names by its handle."""

    def __init__(self):
        self._kernels = {}  # as many as there are plans, however many shapes a program has
        self._lock = threading.Lock()
        self._kept = []
        self._configured = lru_cache(maxsize=4096)(self._configure)

    def shared_memory(self):
        """Bytes of shared memory a block may have."""
        return _shared_memory(_current().device_id)

    def launch(self, step, args, stream):
        """Queue one kernel; returns at once."""
        device_id = _current().device_id
        kernel, config = self._configured(device_id, step)
        launch(_stream(device_id, stream or _LEGACY_STREAM), config, kernel, *args)

    def _configure(self, device_id, step):
        with self._lock:  # numba compiles one at a time
            kernel = self._kernels.get((device_id, step.spec))
            if kernel is None:
                kernel = self._kernels[device_id, step.spec] = load(
                    step.spec, tuple(Device(device_id).compute_capability)
                )
        if step.shared:
            _check(
                cu.cuKernelSetAttribute(
                    cu.CUfunction_attribute.CU_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES,
                    step.shared,
                    kernel.handle,
                    device_id,
                )
            )
        return kernel, LaunchConfig(grid=step.grid, block=step.block, shmem_size=step.shared)

    def keep(self, objects, stream):
        """Hold on to objects until the GPU is done with what is queued on ``stream``, and some call later."""
        event = _stream(_current().device_id, stream or _LEGACY_STREAM).record()
        with self._lock:
            self._kept = [(e, kept) for e, kept in self._kept if not e.is_done]
            self._kept.append((event, objects))

    def allocate(self, nbytes, stream):
        """The address of fresh memory, usable on ``stream`` until `free`."""
        _current()
        return int(_check(cu.cuMemAllocAsync(nbytes, stream or _LEGACY_STREAM)))

    def free(self, address, stream):
        _check(cu.cuMemFreeAsync(address, stream or _LEGACY_STREAM))

    def upload(self, address, array, stream):
        _check(cu.cuMemcpyHtoDAsync(address, array.ctypes.data, array.nbytes, stream or _LEGACY_STREAM))

    def download(self, array, address, stream):
        _check(cu.cuMemcpyDtoHAsync(array.ctypes.data, address, array.nbytes, stream or _LEGACY_STREAM))

    def synchronize(self, stream):
        _check(cu.cuStreamSynchronize(stream or _LEGACY_STREAM))


@cache
def get_driver():
    """The process's one driver."""
    return Driver()


@cache
def _shared_memory(device_id):
    attribute = cu.CUdevice_attribute.CU_DEVICE_ATTRIBUTE_MAX_SHARED_MEMORY_PER_BLOCK_OPTIN
    return _check(cu.cuDeviceGetAttribute(attribute, device_id))


_made_current = threading.local()


def _current():
    """The current device; the first call in a thread makes one current where there is none."""
    device = Device()
    if not getattr(_made_current, "done", False):
        if int(_check(cu.cuCtxGetCurrent())) == 0:
            device.set_current()
        _made_current.done = True
    return device


@lru_cache(maxsize=256)
def _stream(device_id, handle):
    """Kept: to make one defines a class, which takes longer than a launch."""
    return Stream.from_handle(handle)


def _check(returned):
    error, *values = returned
    if error != cu.CUresult.CUDA_SUCCESS:
        raise RuntimeError(f"CUDA driver error {error.name}")
    return values[0] if values else None
