"""The methods of `fastsoftmax._cuda.driver.Driver` on host memory, with kernels interpreted in lockstep."""

import numpy as np

from tests.cuda import lockstep

ALIGNMENT = 256  # as CUDA's allocations

NUMBERS = {"float64": np.float64, "float32": np.float32}


class FakeDriver:
    """Memory is poisoned until written; ``launches`` records what ran."""

    def __init__(self, shared_memory=227 * 1024, *, reverse=False):
        self._shared_memory, self.reverse = shared_memory, reverse
        self.memory, self.launches, self.freed, self.synchronized, self.kept = {}, [], 0, 0, []

    def shared_memory(self):
        return self._shared_memory

    def allocate(self, nbytes, stream=0, offset=0):
        raw = np.full(nbytes + offset + ALIGNMENT, 0xFF, np.uint8)  # NaN in every float dtype
        start = -raw.ctypes.data % ALIGNMENT + offset
        region = raw[start : start + nbytes]
        self.memory[region.ctypes.data] = region
        return region.ctypes.data

    def free(self, address, stream):
        self.freed += self.memory.pop(address) is not None

    def upload(self, address, array, stream):
        self.memory[address][: array.nbytes] = array.reshape(-1).view(np.uint8)

    def download(self, array, address, stream):
        array.reshape(-1).view(np.uint8)[...] = self.memory[address][: array.nbytes]

    def synchronize(self, stream):
        self.synchronized += 1

    def keep(self, objects, stream):
        self.kept.append((objects, stream))

    def launch(self, step, args, stream):
        self.launches.append((step, stream))
        plan = step.spec.plan
        kernel = step.spec.build(lockstep.make_target)
        dtypes = {
            "x": lockstep.STORED[plan.storage],
            "f": NUMBERS[plan.arithmetic],
            "d": np.float64,
            "l": np.int64,
        }
        args = [
            self.pointer(arg, dtypes[letter]) if letter in dtypes else (float if letter == "s" else int)(arg)
            for arg, letter in zip(args, step.spec.signature, strict=True)
        ]
        lockstep.run(kernel, step.grid, step.block, args, step.shared, reverse=self.reverse)

    def pointer(self, address, dtype):
        """What a kernel sees of the allocation that an address lies in."""
        for start, region in self.memory.items():
            if start <= address < start + region.nbytes:
                rest = region[address - start :]
                return lockstep.Pointer(
                    rest[: rest.nbytes // np.dtype(dtype).itemsize * np.dtype(dtype).itemsize].view(dtype)
                )
        return lockstep.Pointer(np.empty(0, dtype))
