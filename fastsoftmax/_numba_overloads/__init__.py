"""The ops inside of ``@njit``: what Numba compiles calls a kernel by the name of a symbol.

Numba imports this package by an entry point (`fastsoftmax._numba_entry`), so that ``import fastsoftmax`` need
not import Numba. A file for each kind of op; what they have in common is in `arguments`, their way out in
`symbols`.
"""

from fastsoftmax._numba_overloads import losses, ops, segments  # noqa: F401
