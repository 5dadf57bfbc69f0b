"""One table, ``(op, backend) -> kernel``, and the rules by which an entry is chosen.

Requirements this module meets:

* a backend is imported when it is first needed, never before;
* a named backend runs or raises: only ``backend=None`` chooses;
* a miss says what there is instead, and why the rest is missing;
* a third party adds a backend with one call, and may leave ops out;
* the choice for ``backend=None`` depends on op, dtype, shape and threads alone, so that equal calls
  give equal bits.
"""

import importlib
import os
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from types import MappingProxyType, ModuleType
from typing import Any, SupportsIndex

import numpy as np

from fastsoftmax import _front, _threads
from fastsoftmax._arrays import rows_of
from fastsoftmax._options import as_real

OPS = (
    "softmax",
    "log_softmax",
    "logsumexp",
    "softmax_vjp",
    "log_softmax_vjp",
    "log_softmax_jvp",
    "softmax_jacobian",
    "cross_entropy",
    "cross_entropy_with_grad",
    "softmax_jacobian_diagonal",
    "log_softmax_jacobian",
    "log_softmax_jacobian_diagonal",
    "soft_cross_entropy",
    "soft_cross_entropy_with_grad",
    "segment_softmax",
    "segment_log_softmax",
    "segment_logsumexp",
    "segment_softmax_vjp",
    "softmax_solve",
    "weighted_logsumexp",
)
"""Every op with a kernel. Backend modules define functions of these names, in this order; the JVP of
softmax is its VJP, since the Jacobian is symmetric. The diagonals are layouts of the Jacobians, and soft
labels are probabilities."""

JACOBIANS = ("softmax_jacobian", "log_softmax_jacobian")
"""Those with a matrix for each row."""

SEGMENTS = {op: op.removeprefix("segment_") for op in OPS if op.startswith("segment_")}
"""Those of ragged rows, and what they do to each."""

_SAME_KERNEL = {"softmax_jvp": "softmax_vjp"}

ENVIRONMENT = "FASTSOFTMAX_BACKEND"


class BackendUnavailable(RuntimeError):
    """A backend was asked for by name and cannot run here; the message says why."""


@dataclass(frozen=True)
class Choice:
    """What `explain` answers: the backend, its kernel and the thread count, and the reason."""

    backend: str
    kernel: str
    num_threads: int
    reason: str

    def __str__(self):
        threads = "1 thread" if self.num_threads == 1 else f"{self.num_threads} threads"
        return f"{self.kernel} on {threads}: {self.reason}"


class _Backend:
    """A named set of kernels, loaded on first use; ``reason`` says why it could not be."""

    def __init__(self, name, load, priority):
        self.name, self.priority = name, priority
        self._load = load
        self._ops = None
        self.reason = None

    def ops(self):
        """The kernels by op name, or None with ``self.reason`` set."""
        if self._ops is None and self.reason is None:
            try:
                loaded = self._load()
            except MemoryError:  # which may be there the next time
                raise
            except Exception as error:  # whatever a broken installation raises is the reason it is unusable
                if _is_of_a_signal_handler(error):
                    raise
                self.reason = f"{type(error).__name__}: {error}"
            else:
                members = loaded if isinstance(loaded, Mapping) else vars(loaded)
                self._ops = MappingProxyType({op: members[op] for op in OPS if op in members})
        return self._ops


def _is_of_a_signal_handler(error):
    """Whether the program's own handler raised it in the middle of a load, or what that was made of."""
    import signal  # seldom needed: 1 ms

    handlers = {getattr(signal.getsignal(number), "__code__", None) for number in signal.valid_signals()}
    while error is not None:
        place = error.__traceback__
        while place is not None:
            if place.tb_frame.f_code in handlers:
                return True
            place = place.tb_next
        error = error.__cause__ or error.__context__
    return False


def _builtin(name, priority):
    return _Backend(name, lambda: importlib.import_module(f"fastsoftmax.backends.{name}"), priority)


# Priorities are the order of the measured speeds (docs/performance.md).
# "cuda" comes last: it runs NumPy arrays only where it is named, and device arrays never come here.
_PRIORITIES = {"cython": 40, "numba": 30, "numpy": 20, "python": 10, "cuda": 0}
_backends = {name: _builtin(name, priority) for name, priority in _PRIORITIES.items()}
# (op, backend) -> kernel; the backend None stands for the fastest. Who registers a backend puts a new dict in
# its place: a kernel that another thread has just looked up goes into the old one, which nobody asks again.
_kernels: dict = {}
_context: ContextVar[str | None] = ContextVar("fastsoftmax_backend", default=None)
_default = None
_environment = os.environ.get(ENVIRONMENT) or None


def available_backends() -> tuple[str, ...]:
    """Names of the backends usable here, fastest first.

    Examples
    --------
    >>> import fastsoftmax as fs
    >>> "numpy" in fs.available_backends()
    True
    """
    return tuple(b.name for b in _by_priority() if b.ops() is not None)


def backend_status() -> dict[str, str]:
    """Every known backend: ``{name: "available" | the reason why not}``.

    Examples
    --------
    >>> import fastsoftmax as fs
    >>> fs.backend_status()["python"]
    'available'
    """
    return {b.name: "available" if b.ops() is not None else b.reason for b in _by_priority()}


def register_backend(
    name: str, ops: Mapping[str, Callable[..., object]] | ModuleType, *, priority: float = 0
) -> None:
    """Add a backend, or replace one that was registered before.

    Parameters
    ----------
    name : str
        The name for ``backend=``.
    ops : mapping or module
        Kernels by op name, any subset of `fastsoftmax.registry.OPS`, with the arguments of
        ``fastsoftmax/backends/python.py``. A missing op is reported by name when it is asked for.
    priority : int
        Place in the order of `available_backends`; the built-in ones have 10 to 40. With
        ``backend=None`` the usable backend of the highest priority that has the op is taken.

    Raises
    ------
    TypeError
        ``name`` is no str or ``priority`` no number.
    ValueError
        ``name`` is that of a built-in backend, or ``ops`` holds no known op.

    Examples
    --------
    >>> import fastsoftmax as fs
    >>> from fastsoftmax.backends import python
    >>> fs.register_backend("mine", {"softmax": python.softmax}, priority=-1)
    >>> fs.softmax([0.0, 0.0], backend="mine")
    array([0.5, 0.5])
    """
    if not isinstance(name, str):
        raise TypeError(f"the name of a backend must be a str; got {name!r}")
    priority = as_real(priority, "priority")
    if name in _backends and not isinstance(_backends[name], _Registered):
        raise ValueError(f"backend name {name!r} is taken by a built-in backend; choose another")
    global _kernels
    backend = _Registered(name, lambda: ops, priority)
    if not backend.ops():
        raise ValueError(f"ops of backend {name!r} holds none of the known ops: {', '.join(OPS)}")
    _backends[name] = backend
    _kernels = {}
    _set_front_doors()


class _Registered(_Backend):
    """A backend that a third party added."""


def set_backend(name: str | None) -> None:
    """Set the backend of every call that names none; ``None`` restores the choice by speed.

    `use_backend` and ``backend=`` take precedence over it; it takes precedence over the environment
    variable ``FASTSOFTMAX_BACKEND``.

    Raises
    ------
    ValueError
        No backend of that name is known.
    BackendUnavailable
        The backend cannot run here; nothing was changed.

    Examples
    --------
    >>> import fastsoftmax as fs
    >>> fs.set_backend("numpy")
    >>> fs.set_backend(None)
    """
    global _default
    if name is not None:
        _usable(name)
    _default = name
    _set_front_doors()


@contextmanager
def use_backend(name: str) -> Iterator[None]:
    """Within the block, and in this thread or task only, run calls that name no backend on ``name``.

    Threads that are started there inherit it where Python has them inherit contexts, as CPython 3.14t does.

    Raises
    ------
    ValueError
        No backend of that name is known.
    BackendUnavailable
        The backend cannot run here.

    Examples
    --------
    >>> import fastsoftmax as fs
    >>> with fs.use_backend("python"):
    ...     fs.softmax([0.0, 0.0])
    array([0.5, 0.5])
    """
    _usable(name)
    token = _context.set(name)
    try:
        yield
    finally:
        _context.reset(token)


def explain(
    op: str,
    shape: Iterable[SupportsIndex],
    dtype: np.dtype[Any] | type | str = np.float64,
    axis: SupportsIndex | tuple[SupportsIndex, ...] | None = -1,
    num_threads: SupportsIndex | None = None,
) -> Choice:
    """Say which backend, kernel and thread count a call without ``backend=`` would take, and why.

    Parameters
    ----------
    op : str
        One of `fastsoftmax.registry.OPS`.
    shape : tuple of int
        Shape of the first argument.
    dtype : dtype
        Its dtype, float64 or float32.
    axis, num_threads
        As for the op.

    Returns
    -------
    Choice
        With the fields ``backend``, ``kernel``, ``num_threads`` and ``reason``.

    Examples
    --------
    >>> import fastsoftmax as fs
    >>> fs.explain("softmax", (1000, 5), "float32", num_threads=1).num_threads
    1
    """
    if not isinstance(op, str) or op not in (*OPS, *_SAME_KERNEL):
        raise ValueError(f"unknown op {op!r}; the ops are {', '.join(OPS)}")
    op = _SAME_KERNEL.get(op, op)
    canonical = rows_of(tuple(shape), axis, last=op in JACOBIANS).canonical
    if op in SEGMENTS:
        canonical = _threads.of_segments(canonical)
    name, reason = requested()
    if name is None:
        name = fastest(op).name
        reason = _reason_for(op, name)
    kernel = find(op, name)
    threads = _threads.count_for(kernel, canonical, _threads.limit(num_threads))
    regime = getattr(kernel, "regime", None)
    label = f"{name}.{op}" + (f" ({regime(np.dtype(dtype), canonical)})" if regime else "")
    return Choice(name, label, threads, reason)


def _reason_for(op, name):
    passed_over = [
        f"{b.name} is not available ({b.reason})" if b.ops() is None else f"{b.name} has no {op}"
        for b in _by_priority()[: [b.name for b in _by_priority()].index(name)]
    ]
    return "; ".join(["the fastest backend usable here", *passed_over])


def requested(backend=None):
    """The backend asked for and by what: the call, `use_backend`, `set_backend` or the environment."""
    if backend is not None:
        return backend, "backend= on the call"
    if (name := _context.get()) is not None:
        return name, "use_backend"
    if (name := _default) is not None:
        return name, "set_backend"
    if _environment is not None:
        return _environment, f"the environment variable {ENVIRONMENT}"
    return None, None


def kernel(op, backend=None):
    """The kernel that runs ``op``: the requested backend's, or else the fastest usable one's."""
    name, source = requested(backend)
    if name is not None:
        return find(op, name, source)
    table = _kernels
    if (op, None) not in table:
        table[op, None] = fastest(op).ops()[op]
    return table[op, None]


def find(op, name, source=None):
    """The kernel at ``(op, name)`` of the table; a miss names what there is."""
    table = _kernels
    try:
        return table[op, name]
    except (KeyError, TypeError):  # a TypeError is an unhashable name, which `_usable` reports
        pass
    ops = _usable(name, source)
    if op not in ops:
        raise BackendUnavailable(f"backend {name!r} has no kernel for {op!r}; it has {', '.join(ops)}")
    table[op, name] = ops[op]
    return ops[op]


def fastest(op):
    """The usable backend of the highest priority that has ``op``."""
    return next(b for b in _by_priority() if op in (b.ops() or ()))


def _usable(name, source=None):
    """The kernels of a backend, or the error that says why there are none."""
    backend = _backends.get(name) if isinstance(name, str) else None
    if backend is None:
        known = ", ".join(f"{k} ({v})" for k, v in backend_status().items())
        origin = f" (from {source})" if source else ""
        raise ValueError(f"unknown backend {name!r}{origin}; known: {known}")
    if (ops := backend.ops()) is None:
        raise BackendUnavailable(f"backend {name!r} is not available here: {backend.reason}")
    return ops


def _by_priority():
    return sorted(_backends.values(), key=lambda b: -b.priority)


def _set_front_doors():
    """The compiled kernels may be called directly while calls that name no backend run on them.

    Where threads change that at once, each looks again: the last to say so has seen what all of them set.
    """
    chosen = None
    while chosen != (holds := _default or _environment or _by_priority()[0].name):
        chosen = holds
        _front.set_open(chosen == "cython")


_front.fit(_context, _threads.limit, kernel, _threads.run)
_set_front_doors()
