"""What Numba calls when it first compiles anything, in every environment where this package is installed."""

from contextlib import suppress


def init():
    """Make the ops known inside of ``@njit``; a program that uses Numba alone never sees a failure of it."""
    with suppress(Exception):
        import fastsoftmax._numba_overloads  # noqa: F401
