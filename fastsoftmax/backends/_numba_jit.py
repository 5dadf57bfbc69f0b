"""How kernels are compiled and started: the one place that knows numba's options and traps."""

import hashlib
import inspect
import math
import os
import threading
import weakref
from contextlib import suppress
from functools import partial
from pathlib import Path
from types import FunctionType

import numba
import numpy as np
from numba import prange, types
from numba.core.compiler_lock import global_compiler_lock

from fastsoftmax import _threads
from fastsoftmax._front import floating_point_mode
from fastsoftmax.backends._numba_mode import restore_mode, take_mode

if numba.config.DISABLE_JIT:
    raise ImportError("NUMBA_DISABLE_JIT is set: these kernels run compiled or not at all")

FLAGS = {
    "nogil": True,  # blocks of rows run on our thread pool
    "error_model": "numpy",  # 1 / 0 is inf, and no kernel carries code to raise
    "boundscheck": False,  # kernels address memory through vectors; indices are checked by the public layer
    "fastmath": False,  # would delete NaN, -inf and the two-part shift
}

# Numba's disk cache looks at the file of the kernel only. The digest of all files the kernels are made
# of is part of their names, so a change in any of them is a miss.
_SOURCES = [*sorted(Path(__file__).parent.glob("_numba_*.py")), Path(__file__).with_name("numba.py")]
_DIGEST = hashlib.sha256(b"".join(path.read_bytes() for path in _SOURCES)).hexdigest()[:12]


def jit(function, **options):
    """``function`` with the flags of this backend; it compiles when it is first called."""
    return numba.njit(**FLAGS, **options)(function)


def inlined(function, counted=False):
    """A helper of kernels. Vectors never cross a call: as arguments they would go through memory.

    Without the wrappers, which nothing calls, kernels compile in two thirds of the time. Helpers do not
    count references to the arrays they are given, which their callers hold anyway: that was 40 % of a
    softmax of 5 entries a row.
    """
    return jit(function, forceinline=True, no_cpython_wrapper=True, no_cfunc_wrapper=True, _nrt=counted)


def allocating(function):
    """A helper that makes arrays, whose references have to be counted."""
    return inlined(function, counted=True)


def _compiled(function, signature, **options):
    """``function`` for one signature, from the disk cache if that can be used."""
    try:
        dispatcher = jit(function, cache=True, **options)
        dispatcher.compile(signature)
    except Exception:  # no writable place for the cache, a full disk, a damaged file: numba raises for each
        dispatcher = jit(function, **options)
        dispatcher.compile(signature)
    dispatcher.disable_compile()
    return dispatcher


def _named(function, name, **replaced):
    """A copy under a name of its own, by which the disk cache knows it."""
    copy = FunctionType(function.__code__, {**function.__globals__, **replaced}, name)
    copy.__module__ = function.__module__
    copy.__qualname__ = f"{name}-{_DIGEST}"
    return copy


def _each_part(first, threads, parts, stop, done, *args):
    for p in prange(threads):
        mode = take_mode()
        serial(*args, first + p, parts, stop)  # noqa: F821  (each copy has its own)
        restore_mode(mode)
        done[p] = True


ROWS_OF_A_TASK = 32  # at most: a lane each

# What is surely one block, Jacobians too: small calls need not count.
FEW_BYTES = 4096

_never = np.zeros(1, np.uint8)
NEVER = _never.ctypes.data
"""The address of a byte that nobody sets, for calls that are not given up."""


class Kernel:
    """An op: compiled for a dtype on first use, called like the function it is made of.

    ``signature`` gives the type of each argument for a dtype. The function has three more than the
    kernel: ``part`` of ``parts``, the share of the rows that one call computes, and ``stop``, the address
    of a byte that is 1 once the call is given up. ``attributes`` are those that `fastsoftmax._threads`
    looks for.
    """

    def __init__(self, function, signature, **attributes):
        vars(self).update(attributes)
        self.__name__, self.__doc__ = function.__name__, function.__doc__
        parameters = list(inspect.signature(function).parameters.values())
        self.__signature__ = inspect.Signature(parameters[:-3])
        self._function, self._argument_types = function, signature
        self._serial, self._twins = {}, {}

    def __call__(self, *args):
        try:
            serial = self._serial[args[0].dtype]
        except KeyError:
            serial = self._compile(args[0].dtype)
        if args[0].nbytes > FEW_BYTES and _threads.blocks_of(self, args[0].shape) > 1:
            self._run(1, _run_all, serial, args)
            return
        with floating_point_mode():
            serial(*args, 0, 1, NEVER)

    def _run(self, threads, work, kernel, args):
        """Call ``work`` with how many times it has to start ``kernel``: Ctrl-C is answered in between.

        And within tasks of more than a block.
        """
        outer, n, inner = args[0].shape
        blocks = min(_threads.blocks_of(self, args[0].shape), outer * inner)
        parts = threads * math.ceil(blocks / threads)
        if _threads.blocks_of(self, (1, n, min(outer * inner, ROWS_OF_A_TASK))) <= 1:
            work(kernel, args, parts, NEVER)
        else:
            stop = np.zeros(1, np.uint8)
            _threads.run_watched(partial(work, kernel, args, parts, stop.ctypes.data), stop)

    def parallel(self, *args, num_threads):
        """The same on several threads."""
        threads = min(num_threads, numba.config.NUMBA_NUM_THREADS)
        twin = self._twin(args[0].dtype) if threads > 1 and _launcher.can_be_used() else None
        if twin is None:
            self._run_in_blocks(args, num_threads)
            return
        self._run(threads, partial(_run_twin, self._serial[args[0].dtype], threads), twin, args)

    def _run_in_blocks(self, args, threads):
        _threads.run_in_blocks(self, args[0].shape, args, threads, _threads.cut_rows)

    def _compile(self, dtype):
        with _compiling:
            if dtype not in self._serial:
                function = _named(self._function, self.__name__, **self._globals(dtype))
                part, parts, stop = [types.intp] * 3
                self._serial[dtype] = _compiled(function, (*self._signature(dtype), part, parts, stop))
        return self._serial[dtype]

    def _twin(self, dtype):
        """The parallel kernel, or None if numba cannot compile one."""
        if dtype not in self._twins:
            serial = self._serial.get(dtype) or self._compile(dtype)
            with _compiling:
                try:
                    function = _named(_each_part, f"{self.__name__}_parallel", serial=serial)
                    done = types.Array(types.bool_, 1, "C")
                    arguments = types.StarArgTuple(self._signature(dtype))
                    signature = (*[types.intp] * 4, done, arguments)
                    self._twins[dtype] = _compiled(function, signature, parallel=True)
                except Exception:
                    _launcher.is_usable = False
                    return None
        return self._twins[dtype]

    def _signature(self, dtype):
        return tuple(argument(numba.from_dtype(dtype)) for argument in self._argument_types)

    def _globals(self, dtype):
        """What the function finds in its module for this dtype."""
        return {}


class RaggedKernel(Kernel):
    """An op of ragged rows: within its function ``rows`` is the kernel of another, as compiled."""

    def __init__(self, function, rows, *signature):
        super().__init__(function, signature, regime=lambda *_: "segments")
        self._rows = rows

    def _run_in_blocks(self, args, threads):
        canonical = _threads.of_segments(args[0].shape)
        _threads.run_in_blocks(self, canonical, args, threads, _threads.cut_segments)

    def _globals(self, dtype):
        return {"rows": self._rows._compile(dtype)}


def _run_twin(serial, threads, twin, args, all_parts, stop):
    turn = _Turn()
    if not _launcher.take(turn):
        _run_all(serial, args, all_parts, stop)
        return
    before = _get_num_threads()
    try:
        _set_num_threads(threads)
        for first in range(0, all_parts, threads):
            parts = range(first, first + threads)
            if not _launch(twin, args, parts, all_parts, stop):
                _run_parts(serial, args, parts, all_parts, stop)
    finally:
        _set_num_threads(before)


def _run_all(serial, args, all_parts, stop):
    _run_parts(serial, args, range(all_parts), all_parts, stop)


def _run_parts(serial, args, parts, all_parts, stop):
    with floating_point_mode():
        for part in parts:
            serial(*args, part, all_parts, stop)


def _launch(twin, args, parts, all_parts, stop):
    """Run some parts side by side, and whether it was done. A child that a signal handler forked may not.

    Python runs no handler between the question and the call. What a worker raises, for want of memory, numba
    loses or makes a SystemError.
    """
    done = np.zeros(len(parts), np.bool_)
    first, threads = parts.start, len(parts)
    with suppress(SystemError):
        if _launcher.is_usable:
            twin(first, threads, all_parts, stop, done, *args)
    if _launcher.is_usable and not done.all():
        raise MemoryError("no memory for the scratch of a numba kernel")
    return done.all()


def _get_num_threads():
    with _layer:
        return numba.get_num_threads()


def _set_num_threads(n):
    with _layer:
        numba.set_num_threads(n)


class _Turn:
    """Whose turn it is to start parallel kernels: over with the frame that holds it, whatever is raised."""

    __slots__ = ("__weakref__",)


class _Launcher:
    """Whether parallel kernels may be started, and by whom.

    One at a time, others run serially; and none in forked children, which GNU OpenMP would end. Numba's
    workqueue layer ends the process if anybody else starts one meanwhile, a prange of the user's own for
    example: there blocks go over threads of ours.
    """

    def __init__(self, is_usable=None):
        self.is_usable, self._turn = is_usable, lambda: None
        self.lock = threading.RLock()  # for a moment, and again by a signal handler that comes in it

    def can_be_used(self):
        if self.is_usable is None:
            try:
                _get_num_threads()  # has numba choose its layer
                self.is_usable = numba.threading_layer() != "workqueue"
            except ValueError:  # there is none
                self.is_usable = False
        return self.is_usable

    def take(self, turn):
        with self.lock:
            is_free = self._turn() is None
            if is_free:
                self._turn = weakref.ref(turn)
        return is_free


_launcher = _Launcher()
_compiling = threading.RLock()
_layer = threading.RLock()  # whoever asks numba for its threads, which takes locks of numba's


def _before_fork():
    """A child lacks the other threads: it must find none of their locks taken, ours or numba's."""
    _compiling.acquire()
    global_compiler_lock.acquire()
    _layer.acquire()


def _after_fork():
    _layer.release()
    global_compiler_lock.release()
    _compiling.release()


def _after_fork_in_child():
    global _launcher
    _after_fork()
    _launcher = _Launcher(is_usable=False)  # a handler may fork within a method of the other


if hasattr(os, "register_at_fork"):
    os.register_at_fork(before=_before_fork, after_in_parent=_after_fork, after_in_child=_after_fork_in_child)
