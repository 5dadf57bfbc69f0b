"""The interpreter itself: each planted fault is caught, and a kernel without one runs."""

import numpy as np
import pytest

from fastsoftmax._cuda.plan import Plan
from tests.cuda import lockstep

THREADS = 64
VECTORS = Plan("float32", THREADS, 4, 4)


def launch(make_kernel, *arrays, plan=VECTORS, reverse=False):
    """Run the kernel that a function of a target returns, on one block."""
    kernel = make_kernel(lockstep.make_target(plan))
    pointers = [lockstep.Pointer(a) for a in arrays]
    lockstep.run(kernel, 1, (THREADS, 1), pointers, dynamic=4 * THREADS, reverse=reverse)


def memory(size, dtype=np.float32):
    """Zeros on a boundary of 256 bytes."""
    raw = np.zeros(size * np.dtype(dtype).itemsize + 256, np.uint8)
    start = -raw.ctypes.data % 256
    return raw[start : start + size * np.dtype(dtype).itemsize].view(dtype)


def sum_of_all(t, *, barrier=True, write=True):
    """A correct kernel, less what is left out of it: each thread adds its neighbour's number."""
    cuda = t.cuda

    def kernel(x, out):
        shared = cuda.shared.array(THREADS, t.number)
        i = cuda.threadIdx.x
        if write:
            shared[i] = x[i]
        if barrier:
            cuda.syncthreads()
        out[i] = shared[i] + shared[(i + 1) % THREADS]

    return kernel


@pytest.mark.parametrize("reverse", [False, True])
def test_a_kernel_without_fault(reverse):
    x, out = memory(THREADS), memory(THREADS)
    x[:] = np.arange(THREADS)
    launch(sum_of_all, x, out, reverse=reverse)
    np.testing.assert_array_equal(out, x + np.roll(x, -1))


def test_missing_barrier():
    with pytest.raises(lockstep.Fault, match=r"before it was written|without a barrier"):
        launch(lambda t: sum_of_all(t, barrier=False), memory(THREADS), memory(THREADS))


@pytest.mark.parametrize("barrier", ["syncwarp", "syncthreads"])
def test_an_input_that_is_the_output(barrier):
    """A warp's lanes read what lane 0 writes: after a shuffle alone that is undefined."""

    def make(t, barrier):
        def kernel(x, out):
            value = x[t.cuda.threadIdx.x // 32]
            barrier()
            if t.cuda.threadIdx.x % 32 == 0:
                out[t.cuda.threadIdx.x // 32] = value + np.float32(1)

        return kernel

    x = memory(THREADS)
    launch(lambda t: make(t, getattr(t.cuda, barrier)), x, x)
    np.testing.assert_array_equal(x[:3], [1, 1, 0])
    with pytest.raises(lockstep.Fault, match="an input is written without a barrier"):
        launch(lambda t: make(t, lambda: t.cuda.shfl_xor_sync(0xFFFFFFFF, 0, 1)), x, x)


def test_uninitialised_shared_memory():
    with pytest.raises(lockstep.Fault, match="shared element 0 read before it was written"):
        launch(lambda t: sum_of_all(t, write=False), memory(THREADS), memory(THREADS))


def test_written_while_others_may_still_read():
    def make(t):
        def kernel(x):
            shared = t.cuda.shared.array(1, t.number)
            if t.cuda.threadIdx.x == 0:
                shared[0] = x[0]
            t.cuda.syncthreads()
            x[t.cuda.threadIdx.x] = shared[0]
            if t.cuda.threadIdx.x == THREADS - 1:
                shared[0] = x[0]

        return kernel

    with pytest.raises(lockstep.Fault, match="written without a barrier"):
        launch(make, memory(THREADS))


@pytest.mark.parametrize("exits", [False, True])
def test_divergent_barrier(exits):
    def make(t):
        def kernel(x):
            if t.cuda.threadIdx.x < 32:  # noqa: SIM114
                t.cuda.syncthreads()
            elif not exits:  # another barrier than theirs
                t.cuda.syncthreads()

        return kernel

    with pytest.raises(lockstep.Fault, match="divergent barrier"):
        launch(make, memory(THREADS))


def test_divergent_shuffle():
    def make(t):
        def kernel(x):
            if t.cuda.threadIdx.x % 32 < 16:
                t.cuda.shfl_xor_sync(0xFFFFFFFF, x[0], 1)

        return kernel

    with pytest.raises(lockstep.Fault, match="divergent shuffle"):
        launch(make, memory(THREADS))


def fetch_at(start, size):
    """A kernel whose first thread takes a vector from an entry on."""

    def make(t):
        def kernel(x):
            if t.cuda.threadIdx.x == 0:
                t.fetch(x, start, t.cuda.local.array(size, t.number), 0)

        return kernel

    return make


def test_misaligned_vector():
    with pytest.raises(lockstep.Fault, match="misaligned vector of 4 at 2"):
        launch(fetch_at(2, 4), memory(8))


@pytest.mark.parametrize("start", [-4, 8, 6])
def test_out_of_bounds(start):
    with pytest.raises(lockstep.Fault, match="out of bounds"):
        launch(fetch_at(start, 4), memory(8))


def test_slot_out_of_bounds():
    with pytest.raises((lockstep.Fault, IndexError)):
        launch(fetch_at(0, 3), memory(8))


def test_slot_read_before_it_was_written():
    def make(t):
        def kernel(x):
            held = t.cuda.local.array(4, t.number)
            t.put(x, 0, held, 0)

        return kernel

    with pytest.raises(lockstep.Fault, match="local slot 0 read before"):
        launch(make, memory(8))


def test_bfloat16_rounds_to_nearest_even():
    ml_dtypes = pytest.importorskip("ml_dtypes")
    values = np.concatenate(
        [np.random.default_rng(0).normal(size=200), [1 + 2.0**-8, 1 + 3 * 2.0**-8, np.inf]]
    )
    values = values.astype(np.float32)
    bits = np.array([lockstep._to_bfloat16(v) for v in values])
    np.testing.assert_array_equal(bits, values.astype(ml_dtypes.bfloat16).view(np.uint16))


@pytest.mark.parametrize(("dtype", "lowest"), [(np.float32, -149), (np.float64, -1074)])
def test_scale_takes_its_exponent_from_the_rounded_sum(dtype, lowest):
    rounder = dtype(1.5 * 2 ** (23 if dtype is np.float32 else 52))
    for k in (lowest, -127, -1, 0, 1):
        assert lockstep._scale(dtype(1), rounder + dtype(k)) == np.ldexp(dtype(1), k)
