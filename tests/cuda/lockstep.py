"""An interpreter of CUDA kernels: the kernels' own Python functions, without a GPU and without numba-cuda.

One greenlet a CUDA thread; barriers and shuffles are where they switch, so a run is deterministic. It
raises `Fault` for what hardware lets pass or makes undefined: a barrier or shuffle that not all threads
reach, an access out of bounds or unaligned, a read of memory that nobody wrote, and two threads at one
place of shared memory, or of an input that is the output too, without a barrier in between. A shuffle is
none: it orders no accesses to memory.
"""

import sys
from types import SimpleNamespace

import numpy as np
from greenlet import getcurrent, greenlet

WARP = 32

# bfloat16 as its bits, so that no test needs ml_dtypes.
STORED = {"float64": np.float64, "float32": np.float32, "float16": np.float16, "bfloat16": np.uint16}


class Fault(RuntimeError):
    """The kernel did what a CUDA kernel must not."""


class Pointer:
    """Device memory from an address on: a flat array, with every access checked."""

    def __init__(self, array):
        self.array = array
        self.readers = None  # of memory that another argument is too: who read an address, and when

    def check(self, i, width=1, *, vector=False, writes=False):
        if not 0 <= i <= self.array.size - width:
            raise Fault(f"access of {width} at {i}, out of bounds for {self.array.size}")
        if vector and (self.array.ctypes.data + int(i) * self.array.itemsize) % (width * self.array.itemsize):
            raise Fault(f"misaligned vector of {width} at {i}")
        if self.readers is not None:
            for q in range(width):
                self._note(self.array.ctypes.data + int(i + q) * self.array.itemsize, writes)

    def _note(self, address, writes):
        thread, readers = getcurrent(), self.readers.setdefault(address, {})
        if not writes:
            readers[thread] = thread.block.epoch, thread.fences
            return
        for reader, (epoch, fences) in readers.items():
            after_barrier = reader.block is thread.block and thread.block.epoch > epoch
            after_fence = reader.warp is thread.warp and thread.fences > fences
            if reader is not thread and not after_barrier and not after_fence:
                raise Fault("an input is written without a barrier after another thread read it")

    def __getitem__(self, i):
        self.check(i)
        return self.array[i]

    def __setitem__(self, i, value):
        self.check(i, writes=True)
        self.array[i] = value


class _Local(list):
    """A thread's own array; None until written."""

    def __getitem__(self, i):
        if i < 0 or (value := list.__getitem__(self, i)) is None:
            raise Fault(f"local slot {i} read before it was written")
        return value


class _Shared:
    """A block's array, which knows who touched an element since the last barrier."""

    def __init__(self, size, block):
        self.values, self.block = [None] * size, block
        self.writer, self.reader = {}, {}

    def _check(self, i):
        if not 0 <= i < len(self.values):
            raise Fault(f"shared element {i}, out of bounds for {len(self.values)}")

    def check_vector(self, i, width):
        """The array begins at an address aligned to any vector."""
        if i % width:
            raise Fault(f"misaligned vector of {width} at shared element {i}")

    def __getitem__(self, i):
        self._check(i)
        thread, epoch = getcurrent().place, self.block.epoch
        if self.values[i] is None:
            raise Fault(f"shared element {i} read before it was written")
        writer, when = self.writer[i]
        if when == epoch and writer != thread:
            raise Fault(f"shared element {i} read without a barrier after another thread wrote it")
        before, when = self.reader.get(i, (thread, epoch))
        self.reader[i] = (thread if when < epoch or before == thread else None, epoch)
        return self.values[i]

    def __setitem__(self, i, value):
        self._check(i)
        thread, epoch = getcurrent().place, self.block.epoch
        for other, when in (self.writer.get(i, (thread, -1)), self.reader.get(i, (thread, -1))):
            if when == epoch and other != thread:
                raise Fault(f"shared element {i} written without a barrier after another thread's access")
        self.writer[i] = (thread, epoch)
        self.values[i] = value


class _Thread(greenlet):
    """One CUDA thread: its indices, and what it waits for."""

    def wait(self, kind, *what):
        caller = sys._getframe(2)
        self.waits += 1
        self.waiting = (kind, caller.f_code.co_name, caller.f_lasti, self.waits, *what)
        self.parent.switch()


class _Cuda:
    """The namespace ``cuda`` of a kernel, for the thread that is running."""

    threadIdx = property(lambda self: getcurrent().index)
    blockIdx = property(lambda self: getcurrent().block.index)
    shared = property(lambda self: SimpleNamespace(array=self._shared_array))
    local = property(lambda self: SimpleNamespace(array=lambda size, number: _Local([None] * size)))

    def _shared_array(self, size, number, alignment=None):
        thread = getcurrent()
        arrays = thread.block.shared
        key = "dynamic" if size == 0 else thread.arrays
        thread.arrays += size != 0
        if key not in arrays:
            arrays[key] = _Shared(size or thread.block.dynamic // np.dtype(number).itemsize, thread.block)
        return arrays[key]

    def syncthreads(self):
        getcurrent().wait("block")

    def syncwarp(self):
        thread = getcurrent()
        thread.wait("warp")
        thread.fences += 1

    def shfl_xor_sync(self, mask, value, offset):
        thread = getcurrent()
        turn = thread.shuffles % 2  # two places: a lane may come to its next shuffle before others read
        thread.shuffles += 1
        thread.offered[turn] = value
        thread.wait("warp", offset)
        return thread.warp[thread.place % WARP ^ offset].offered[turn]


def make_target(plan):
    """The target of a plan, for kernels to be interpreted; the counterpart of `fastsoftmax._cuda.target`."""
    number = np.float64 if plan.arithmetic == "float64" else np.float32
    width, vector = plan.width, plan.vector
    widen, narrow = (_from_bfloat16, _to_bfloat16) if plan.storage == "bfloat16" else (number, number)

    def load(p, i):
        p.check(i)
        return widen(p.array[i])

    def store(p, i, value):
        p.check(i, writes=True)
        p.array[i] = narrow(value)

    def fetch(p, i, numbers, k):
        p.check(i, width, vector=vector)
        for q in range(width):
            numbers[k + q] = widen(p.array[i + q])

    def put(p, i, numbers, k):
        p.check(i, width, vector=vector, writes=True)
        for q in range(width):
            p.array[i + q] = narrow(numbers[k + q])

    def copy(p, i, words, k):
        p.check(i, width, vector=vector)
        for q in range(width):
            words[k + q] = p.array[i + q]

    def blank(word, words, k):
        for q in range(width):
            words[k + q] = word

    def move(words, k, shared, i):
        shared.check_vector(i, width)
        for q in range(width):
            shared[i + q] = words[k + q]

    def pull(words, i, numbers, k):
        words.check_vector(i, width)
        for q in range(width):
            numbers[k + q] = widen(words[i + q])

    def push(words, i, numbers, k):
        words.check_vector(i, width)
        for q in range(width):
            words[i + q] = narrow(numbers[k + q])

    return SimpleNamespace(
        cuda=_Cuda(),
        device=lambda function: function,
        number=number,
        word=STORED[plan.storage],
        fma=(lambda a, b, c: a * b + c) if number is np.float64 else _fma32,
        max=lambda a, b: a if a > b or b != b else b,
        scale=_scale,
        ex2=_ex2,
        load=load,
        store=store,
        fetch=fetch,
        put=put,
        copy=copy,
        blank=blank,
        move=move,
        pull=pull,
        push=push,
        stored=narrow,
        hidden=lambda k: k,
    )


def _fma32(a, b, c):
    """One rounding, from float64 (Python's floats take half the time of NumPy's)."""
    return np.float32(float(a) * float(b) + float(c))


def _scale(value, shifted):
    if not np.isfinite(shifted):
        return shifted * 0
    if isinstance(shifted, np.float64):
        return np.ldexp(value, int(shifted.view(np.int64).astype(np.int32)))
    bits = int(shifted.view(np.int32))
    return np.ldexp(value, (bits & 0x3FFFFF) - 2 * (bits & 0x200000))


def _ex2(x):
    """As inexact as the hardware's may be."""
    return np.float32(np.exp2(np.float64(x)) * (1 + 2.0**-22))


def _from_bfloat16(bits):
    return (np.uint32(bits) << np.uint32(16)).view(np.float32)


def _to_bfloat16(value):
    if value != value:
        return np.uint16(0x7FC0)
    bits = int(np.float32(value).view(np.uint32))
    return np.uint16((bits + 0x7FFF + (bits >> 16 & 1)) >> 16)


def run(kernel, grid, block, args, dynamic=0, *, reverse=False):
    """Launch ``kernel`` on a grid of blocks; ``reverse`` runs blocks and warps in the opposite order."""
    _watch_shared(args)
    blocks = range(grid)
    for index in reversed(blocks) if reverse else blocks:
        _run_block(kernel, index, block, args, dynamic, reverse)


def _watch_shared(args):
    """Note who reads what, where two arguments are the same memory."""
    pointers, readers = [arg for arg in args if isinstance(arg, Pointer)], {}
    for p in pointers:
        if any(p is not other and np.may_share_memory(p.array, other.array) for other in pointers):
            p.readers = readers


def _run_block(kernel, index, shape, args, dynamic, reverse):
    block = SimpleNamespace(index=SimpleNamespace(x=index), shared={}, dynamic=dynamic, epoch=0)
    threads = [_make_thread(kernel, place, shape, args, block) for place in range(shape[0] * shape[1])]
    warps = [threads[i : i + WARP] for i in range(0, len(threads), WARP)]
    for warp in warps:
        for thread in warp:
            thread.warp = warp
    while any(not t.dead for t in threads):
        for warp in reversed(warps) if reverse else warps:
            _run_warp(warp)
        _release(threads, threads, "barrier")
        block.epoch += 1


def _make_thread(kernel, place, shape, args, block):
    def body():
        with np.errstate(all="ignore"):  # a greenlet does not inherit it
            kernel(*args)

    thread = _Thread(body)
    thread.index = SimpleNamespace(x=place % shape[0], y=place // shape[0])
    thread.place, thread.block, thread.waiting = place, block, None
    thread.waits = thread.arrays = thread.shuffles = thread.fences = 0
    thread.offered = [None, None]
    return thread


def _run_warp(warp):
    """Run a warp until each of its threads is at a block's barrier or done."""
    while True:
        for thread in warp:
            if not thread.dead and thread.waiting is None:
                thread.switch()
        alive = [t for t in warp if not t.dead]
        if not any(t.waiting[0] == "warp" for t in alive):
            return
        _release(alive, warp, "shuffle")


def _release(alive, everyone, what):
    """Let threads go on that all wait for the same; the fault of a divergent wait otherwise."""
    waiting = {t.waiting for t in alive if not t.dead}
    if len(waiting) > 1 or (waiting and any(t.dead for t in everyone)):
        exited = sum(t.dead for t in everyone)
        raise Fault(f"divergent {what}: threads wait for {waiting}, {exited} have exited")
    for thread in alive:
        thread.waiting = None
