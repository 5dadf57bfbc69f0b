"""Thread counts, and kernels run over row blocks on a pool.

Blocks are rows of the canonical form, so each row is computed by one thread exactly as it would be
alone: the bits do not depend on the thread count. The pool is made on first use and made anew in
forked children; kernels release the GIL. Kernels with a ``parallel`` twin are compiled: they make and share
out their blocks themselves (the Cython ones by src_cy/pool.h), and NumPy has nothing to warn of.
"""

import math
import os
import threading
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager, suppress
from contextvars import ContextVar
from typing import SupportsIndex

import numpy as np

from fastsoftmax._options import as_int

ENVIRONMENT = "FASTSOFTMAX_NUM_THREADS"

# A second thread pays from about this many elements each: one of the pool starts some 60 us late.
ELEMENTS_PER_THREAD = 64 * 1024

# A block takes at most some 50 ms, so that Ctrl-C is answered between two of them.
BLOCK_ELEMENTS = 16 * 1024 * 1024

# More pay on no machine, and whoever asks for 10**30 means that there is no limit.
MOST_THREADS = 1024

_context = ContextVar("fastsoftmax_num_threads", default=None)
_default = None
_pool = None
_pool_size = 0
_lock = threading.Lock()


def _positive(n, name="num_threads"):
    n = as_int(n, name, "a positive int")
    if n < 1:
        raise ValueError(f"{name} must be a positive int; got {n}")
    return min(n, MOST_THREADS)


def set_num_threads(n: SupportsIndex | None) -> None:
    """Set how many threads calls may use that name no number; ``None`` restores the default.

    The default is the environment variable ``FASTSOFTMAX_NUM_THREADS``, or else the number of CPUs
    that this process may use (its affinity and its cgroup's quota). More than 1024 count as 1024.

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
    if (n := _context.get()) is not None:
        return n
    return _default if _default is not None else _from_environment()


@contextmanager
def threads(n: SupportsIndex) -> Iterator[None]:
    """Within the block, and in this thread or task only, use at most ``n`` threads a call.

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
    """The most threads a call may use, its own argument first."""
    return get_num_threads() if num_threads is None else _positive(num_threads)


def _from_environment():
    global _default_from_environment
    if _default_from_environment is None:
        given = os.environ.get(ENVIRONMENT)
        if not given:
            _default_from_environment = _usable_cpus()
        else:
            n = int(given) if given.strip().isdecimal() else given
            _default_from_environment = _positive(n, f"the environment variable {ENVIRONMENT}")
    return _default_from_environment


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


def sized(*, elements_per_thread=ELEMENTS_PER_THREAD, block_elements=BLOCK_ELEMENTS):
    """Give a kernel its own sizes in place of the two above, which are those of a compiled one."""

    def decorate(kernel):
        kernel.elements_per_thread, kernel.block_elements = elements_per_thread, block_elements
        return kernel

    return decorate


def count_for(kernel, canonical, limit):
    """How many threads a kernel gets for one call: one for each full share of the elements it counts."""
    if limit == 1:
        return 1
    share = getattr(kernel, "elements_per_thread", ELEMENTS_PER_THREAD)
    elements = getattr(kernel, "elements", math.prod)(canonical)
    return max(1, min(limit, elements // share, _rows(canonical)))


def _rows(canonical):
    outer, _, inner = canonical
    return outer if outer > 1 else inner


def run(kernel, canonical, args, num_threads=None):
    """Call ``kernel(*args)`` in blocks of rows, on as many threads as pay.

    Arrays of two or more dimensions lead with ``outer``, and end with ``inner`` where there is one;
    they are cut along the first, or along the last where ``outer`` is 1. Other arguments are shared.
    """
    threads = count_for(kernel, canonical, limit(num_threads))
    if 0 in canonical:
        return
    if parallel := getattr(kernel, "parallel", None):
        if threads == 1:
            kernel(*args)
        else:
            parallel(*args, num_threads=threads)
        return
    block_elements = getattr(kernel, "block_elements", BLOCK_ELEMENTS)
    blocks = max(threads, math.ceil(math.prod(canonical) / block_elements))
    calls = _cut(canonical, args, blocks)
    if threads > 1:
        _run_on_pool(kernel, calls, threads)
    else:
        for block in calls:
            _call(kernel, block)


def _call(kernel, args):
    with np.errstate(all="ignore"):  # special values are part of the contract, not worth a warning
        kernel(*args)


def _cut(canonical, args, blocks):
    """The arguments of each block of rows."""
    if blocks == 1:
        yield args
        return
    rows = _rows(canonical)
    step = math.ceil(rows / min(blocks, rows))
    for start in range(0, rows, step):
        cut = slice(start, start + step)
        part = (cut,) if canonical[0] > 1 else (..., cut)
        yield tuple(a[part] if isinstance(a, np.ndarray) and a.ndim > 1 else a for a in args)


def _run_on_pool(kernel, calls, threads):
    """Run the blocks on ``threads`` threads, the caller's own among them, or on as many as there can be."""
    lock = threading.Lock()
    interrupted = False

    def work():
        while not interrupted:
            with lock:
                block = next(calls, None)
            if block is None:
                return
            _call(kernel, block)

    helpers = [Future() for _ in range(threads - 1)]
    with suppress(RuntimeError):  # the interpreter is shutting down, or the system has no more threads
        pool = _executor(len(helpers))
        for helper in helpers:
            pool.submit(_help, helper, work)
    try:
        work()
    finally:
        interrupted = True  # after Ctrl-C, the others stop at their next block
        for helper in helpers:
            if not helper.cancel():
                helper.result()


def _help(helper, work):
    """Fulfil a future with some work. It is ours: of work for which no thread starts the pool gives none."""
    if helper.set_running_or_notify_cancel():
        try:
            helper.set_result(work())
        except BaseException as error:
            helper.set_exception(error)


def _executor(size):
    global _pool, _pool_size
    with _lock:
        if _pool is None or _pool_size < size:
            _pool, _pool_size = ThreadPoolExecutor(size, "fastsoftmax"), size
        return _pool


def _after_fork():
    # A forked child has none of its parent's threads, and perhaps a lock that one of them held.
    global _pool, _lock
    _pool, _lock = None, threading.Lock()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)
