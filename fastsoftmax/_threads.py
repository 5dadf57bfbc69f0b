"""Thread counts, and kernels run over row blocks on several threads.

Blocks are rows of the canonical form, so each row is computed by one thread exactly as it would be
alone: the bits do not depend on the thread count. Kernels release the GIL. Those with a ``parallel`` twin
are compiled: they make and share out their blocks themselves (the Cython ones by src_cy/pool.c), and NumPy
has nothing to warn of. The blocks of others go over threads that are started for the call and end with it:
no pool, no lock is left that an exception, a fork or the interpreter's end could find in the wrong state.
"""

import math
import os
from _thread import allocate_lock, start_new_thread
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from contextvars import ContextVar, copy_context
from itertools import pairwise
from time import sleep
from typing import SupportsIndex

import numpy as np

from fastsoftmax import _front
from fastsoftmax._options import as_int

ENVIRONMENT = "FASTSOFTMAX_NUM_THREADS"
OPENMP = "OMP_NUM_THREADS"

# A second thread pays from about this many elements each: one of the pool starts some 60 us late.
ELEMENTS_PER_THREAD = 64 * 1024

# A block takes at most some 50 ms, so that Ctrl-C is answered between two of them.
BLOCK_ELEMENTS = 16 * 1024 * 1024

# More pay on no machine, and whoever asks for 10**30 means that there is no limit.
MOST_THREADS = 1024

_context = ContextVar("fastsoftmax_num_threads", default=None)
_default = None
_within = ContextVar("fastsoftmax_call", default=None)  # whose blocks are run, on each of its threads


def _positive(n, name="num_threads"):
    n = as_int(n, name, "a positive int")
    if n < 1:
        raise ValueError(f"{name} must be a positive int; got {n}")
    return min(n, MOST_THREADS)


def set_num_threads(n: SupportsIndex | None) -> None:
    """Set how many threads calls may use that name no number; ``None`` restores the default.

    The default is the environment variable ``FASTSOFTMAX_NUM_THREADS``, else ``OMP_NUM_THREADS``, by which
    joblib and dask share out a machine among their workers, else the number of CPUs that this process may
    use (its affinity and its cgroup's quota). More than 1024 count as 1024.

    Raises
    ------
    TypeError, ValueError
        ``n`` is not a positive int.

    Examples
    --------
    >>> import fastsoftmax as fs
    >>> fs.set_num_threads(2)
    >>> fs.get_num_threads()
    2
    >>> fs.set_num_threads(None)
    """
    global _default
    _default = None if n is None else _positive(n)


def get_num_threads() -> int:
    """How many threads a call may use that names no number.

    Examples
    --------
    >>> import fastsoftmax as fs
    >>> fs.get_num_threads() >= 1
    True
    """
    return _of_the_process() if (n := _context.get()) is None else n


def _of_the_process():
    return _from_environment() if (n := _default) is None else n  # read once: another thread may set it


def limit_this_thread(n):
    """What `threads` does, but until the next time; with what holds anyway it is undone."""
    n = _positive(n)
    _context.set(None if n == _of_the_process() else n)


@contextmanager
def threads(n: SupportsIndex) -> Iterator[None]:
    """Within the block, and in this thread or task only, use at most ``n`` threads a call.

    Threads that are started there inherit it where Python has them inherit contexts, as CPython 3.14t does.

    Raises
    ------
    TypeError, ValueError
        ``n`` is not a positive int.

    Examples
    --------
    >>> import fastsoftmax as fs
    >>> with fs.threads(1):
    ...     fs.get_num_threads()
    1
    """
    token = _context.set(_positive(n))
    try:
        yield
    finally:
        _context.reset(token)


def limit(num_threads=None):
    """The most threads a call may use, its own argument first: one from within another call."""
    threads = get_num_threads() if num_threads is None else _positive(num_threads)
    return threads if _within.get() is None else 1


def _from_environment():
    global _default_from_environment
    if _default_from_environment is None:
        given = os.environ.get(ENVIRONMENT)
        if given:
            n = int(given) if given.strip().isdecimal() else given
            _default_from_environment = _positive(n, f"the environment variable {ENVIRONMENT}")
        else:
            _default_from_environment = _from_openmp() or _usable_cpus()
    return _default_from_environment


def _from_openmp():
    """That of the outermost of nested regions ("4,2"), or None: what OpenMP ignores is ignored here."""
    outermost = os.environ.get(OPENMP, "").split(",")[0].strip()
    return _positive(int(outermost)) if outermost.isdecimal() and int(outermost) else None


_default_from_environment = None


def _usable_cpus():
    """CPUs of this process's affinity, or fewer where a cgroup grants less time."""
    cpus = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    try:
        with open("/sys/fs/cgroup/cpu.max") as f:
            quota, period = f.read().split()
        cpus = min(cpus, math.ceil(int(quota) / int(period)))
    except (OSError, ValueError):  # no cgroup v2, or "max": no quota
        pass
    return max(cpus, 1)


def sized(
    *,
    elements_per_thread=ELEMENTS_PER_THREAD,
    block_elements=BLOCK_ELEMENTS,
    elements=math.prod,
    least_columns=1,
):
    """Give a kernel its own sizes and count of a canonical shape's elements, in place of a compiled one's."""

    def decorate(kernel):
        kernel.elements_per_thread, kernel.block_elements = elements_per_thread, block_elements
        kernel.elements, kernel.least_columns = elements, least_columns
        return kernel

    return decorate


def count_for(kernel, canonical, limit):
    """How many threads a kernel gets for one call: one for each full share of the elements it counts."""
    if limit == 1:
        return 1
    share = getattr(kernel, "elements_per_thread", ELEMENTS_PER_THREAD)
    return max(1, min(limit, _elements(kernel, canonical) // share, _rows(canonical)))


def _elements(kernel, canonical):
    """How many a kernel counts in arrays of this shape."""
    return getattr(kernel, "elements", math.prod)(canonical)


def _rows(canonical):
    outer, _, inner = canonical
    return outer if outer > 1 else inner


def blocks_of(kernel, canonical):
    """How many blocks there are in arrays of this shape, and a fraction."""
    return _elements(kernel, canonical) / getattr(kernel, "block_elements", BLOCK_ELEMENTS)


def of_segments(canonical):
    """The shape by which ragged rows of arrays of this one are counted: each entry is shared out."""
    return math.prod(canonical), 1, 1


def run(kernel, canonical, args, num_threads=None):
    """Call ``kernel(*args)`` on as many threads as pay."""
    _run(kernel, canonical, args, num_threads, cut_rows)


def run_segments(kernel, args, num_threads=None):
    """The same with the arguments of an op of ragged rows."""
    _run(kernel, of_segments(args[0].shape), args, num_threads, cut_segments)


def _run(kernel, canonical, args, num_threads, cut):
    threads = count_for(kernel, canonical, limit(num_threads))
    if 0 in canonical:
        return
    parallel = getattr(kernel, "parallel", None)
    if parallel is None:
        run_in_blocks(kernel, canonical, args, threads, cut)
    elif threads == 1:
        kernel(*args)
    else:
        parallel(*args, num_threads=threads)


def run_in_blocks(kernel, canonical, args, threads, cut):
    """Call ``kernel(*args)`` in blocks of rows, whose arguments `cut_rows` or `cut_segments` makes."""
    blocks = max(threads, math.ceil(blocks_of(kernel, canonical)))
    blocks = [args] if blocks == 1 else cut(canonical, args, blocks, getattr(kernel, "least_columns", 1))
    if threads > 1:
        copy_context().run(_Call(kernel, blocks).run, threads - 1)
    else:
        for block in blocks:
            _run_block(kernel, block)


def run_watched(work, stop):
    """Call ``work()``, which takes long and ends soon once ``stop[0]`` is 1, so that Ctrl-C ends it."""
    copy_context().run(_Watched(work, stop).run, 1)


def _run_block(kernel, args):
    # Special values are part of the contract, not worth a warning.
    with _front.floating_point_mode(), np.errstate(all="ignore"):
        kernel(*args)


def cut_rows(canonical, args, blocks, least_columns):
    """The arguments of each block of rows.

    Arrays of two or more dimensions lead with ``outer``, and end with ``inner`` where there is one;
    they are cut along the first, or along the last where one of ``outer`` is more than a block. Other
    arguments are shared.
    """
    outer, _, inner = canonical
    for first in _slices(outer, blocks):
        for last in _slices(inner, min(math.ceil(blocks / outer), max(1, inner // least_columns))):
            part = (first,) if last == slice(0, inner) else (first, ..., last)
            yield tuple(a[part] if isinstance(a, np.ndarray) and a.ndim > 1 else a for a in args)


def cut_segments(_canonical, args, blocks, _least_columns):
    """The arguments of each block of ragged rows, which are cut where those begin.

    Blocks have equal numbers of entries but for the last row of each; an empty row counts as an entry.
    """
    (ptr,) = (a for a in args if a.ndim == 1)
    places = ptr + np.arange(len(ptr))
    edges = np.searchsorted(places[:-1], [places[-1] * k // blocks for k in range(blocks + 1)])
    for first, last in pairwise(edges):
        start, stop = ptr[first], ptr[last]
        parts = {1: slice(first, last + 1), 2: np.s_[:, first:last], 3: np.s_[:, start:stop]}
        if first < last:
            yield tuple(a[parts[a.ndim]] - start if a is ptr else a[parts[a.ndim]] for a in args)


def _slices(length, parts):
    """Of equal length or one less, as many as asked for or fewer."""
    parts = min(parts, length)
    return [slice(length * k // parts, length * (k + 1) // parts) for k in range(parts)]


class _Call:
    """The blocks of one call, shared out among its own thread and helpers.

    Each thread runs in a copy of the caller's context, which says within what it is: nothing has to be put
    back. A signal handler may raise at any byte code of the caller, call the library, or fork.
    """

    def __init__(self, kernel, blocks):
        self._kernel, self._blocks = kernel, deque(blocks)
        self._at_work, self._errors, self._is_incomplete = [], [], False

    def run(self, helpers):
        _within.set(self)
        try:
            with suppress(RuntimeError, MemoryError):  # no more threads, as at the interpreter's end
                for _ in range(helpers):
                    start_new_thread(copy_context().run, (self._help,))
            self._take_part()
        except BaseException:
            self._give_up()
            raise
        finally:
            self._wait()
        if self._is_incomplete:
            raise RuntimeError(
                "forked in the middle of a parallel call: its result is incomplete in this process"
            )
        if self._errors:
            raise self._errors[0]

    def _take_part(self):
        self._work()

    def _work(self):
        while True:
            try:
                block = self._blocks.popleft()  # one step, on every interpreter
            except IndexError:
                return
            _run_block(self._kernel, block)

    def _help(self):
        """Work, with a lock of its own held. One that begins when the blocks are gone finds nothing to do."""
        lock = allocate_lock()
        with lock:
            self._at_work.append(lock)
            try:
                self._work()
            except BaseException as error:
                self._errors.append(error)
                self._give_up()
            finally:
                self._at_work.remove(lock)

    def _give_up(self):
        self._blocks.clear()

    def _wait(self):
        """Until no helper is at work, whatever interrupts it: nobody writes after the call is over."""
        interrupt = None
        while True:
            try:
                while True:
                    with self._at_work[0]:
                        pass
            except IndexError:
                break
            except BaseException as error:
                interrupt = error
                self._give_up()
        if interrupt is not None:
            raise interrupt

    def lose_helpers(self):
        """In a forked child, which has none: do not wait for them."""
        self._is_incomplete = bool(self._at_work)
        for lock in self._at_work:
            lock.release()
        self._at_work.clear()


class _Watched(_Call):
    """One long block, left to a helper: on the caller's thread signal handlers run, and may raise."""

    def __init__(self, work, stop):
        super().__init__(work, [()])
        self._stop = stop

    def _take_part(self):
        for _ in range(100):
            if not self._blocks:  # the helper has it
                return
            sleep(0.5e-3)
        self._work()  # there is none

    def _give_up(self):
        super()._give_up()
        self._stop[0] = 1


def _after_fork():
    if (call := _within.get()) is not None:
        call.lose_helpers()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)
