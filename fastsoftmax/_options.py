"""Options that are no arrays: of the right type and value, or an error that says what is expected."""

from numbers import Real
from operator import index

import numpy as np

REDUCTIONS = ("mean", "sum", "none")


def as_int(value, name, expected="an int"):
    """Anything with ``__index__`` but a bool, as an int."""
    try:
        if not isinstance(value, bool | np.bool_):  # of which older NumPy makes an index, with a warning
            return index(value)
    except TypeError:
        pass
    raise TypeError(f"{name} must be {expected}; got {value!r}")


def as_real(value, name, expected="a number"):
    """A real number, perhaps in an array of no dimensions, as a float."""
    if type(value) is float:
        return value
    number = value[()] if isinstance(value, np.ndarray) else value
    if not isinstance(number, Real) or isinstance(number, bool):
        raise TypeError(f"{name} must be {expected}; got {value!r}")
    try:
        return float(number)
    except OverflowError:  # of an int
        return np.inf if number > 0 else -np.inf


def as_ridge(value, dtype):
    """What is added to a diagonal, 0 or more, rounded to the dtype that is computed in."""
    with np.errstate(all="ignore"):
        ridge = float(dtype.type(as_real(value, "ridge", "a number of 0 or more")))
    if not 0 <= ridge < np.inf:
        raise ValueError(f"ridge must be 0 or more, and finite as {dtype}; got {value!r}")
    return ridge


def as_bool(value, name):
    """True or False, as NumPy's bool or as 1 and 0 if need be."""
    if isinstance(value, (int, np.integer, np.bool_)) and value in (0, 1):
        return bool(value)
    raise TypeError(f"{name} must be True or False; got {value!r}")


def check_choice(value, name, known):
    """Raise ``ValueError`` unless ``value`` is one of the ``known`` strings."""
    if not isinstance(value, str) or value not in known:
        raise ValueError(f"unknown {name} {value!r}; expected one of {', '.join(map(repr, known))}")


def check_loss(ignore_index, label_smoothing, reduction):
    """The options of a cross-entropy but for ``weight``: the label to ignore or None, and the smoothing."""
    check_choice(reduction, "reduction", REDUCTIONS)
    smoothing = as_real(label_smoothing, "label_smoothing", "a number between 0 and 1")
    if not 0.0 <= smoothing <= 1.0:
        raise ValueError(f"label_smoothing must be between 0 and 1; got {label_smoothing!r}")
    if ignore_index is not None:
        ignore_index = as_int(ignore_index, "ignore_index", "an int or None")
    return ignore_index, smoothing
