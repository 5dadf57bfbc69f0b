"""What a caller passes as an array, as an ndarray; or a TypeError whose advice works for what was given."""

from reprlib import repr as short

import numpy as np

# What a masked entry becomes so that it takes no part, by the name of the argument.
_FILLED = {"y": "0", "b": "0", "g": "0", "t": "0", "weight": "1", "sample_weight": "0", "where": "False"}

_DERIVATIVE = "its derivative, such as fastsoftmax.softmax_vjp"
# What follows a computation through its own operations, by package and part of the type's name, and the way
# around.
_TRACED = {
    ("autograd", "Box"): "take the op from fastsoftmax.autograd",
    ("jax", "Tracer"): f"call the op through jax.pure_callback, and give jax.custom_vjp {_DERIVATIVE}",
    ("torch", ""): f"pass {{name}}.detach(), and give torch.autograd.Function {_DERIVATIVE}",
}


def asarray(value, name):
    """``value`` as `np.asarray` has it; pandas' nullable columns as the dtype that they stand for."""
    if type(value) is np.ndarray:
        return value
    _refuse_masks(value, name)
    _refuse_dask(value, name)
    _refuse_devices(value, name)
    try:
        a = np.asarray(value)
    except (TypeError, RuntimeError) as error:
        if (reason := traced(value, name)) and getattr(value, "requires_grad", True):
            raise TypeError(reason) from error
        raise
    return a if a.dtype.kind != "O" or isinstance(value, np.ndarray) else _from_objects(value, a, name)


def _refuse_masks(value, name):
    """A mask would be lost, that of an array in a list as well."""
    if isinstance(value, np.ma.MaskedArray):
        filled = _filled(value, name, name)
        raise TypeError(f"{name} is a masked array, whose mask would be lost: pass {filled}")
    if not isinstance(value, (list, tuple)):
        return
    kinds = set(map(type, value)) - {type(np.ma.masked)}  # of which NumPy itself warns
    if any(issubclass(kind, np.ma.MaskedArray) for kind in kinds):
        filled = _filled(np.ma.stack(value), name, f"np.ma.stack({name})")
        raise TypeError(f"{name} holds masked arrays, whose masks would be lost: pass {filled}")


def _refuse_dask(value, name):
    """All of it would be computed and held, which may be more than fits."""
    if type(value).__module__.partition(".")[0] == "dask" and hasattr(value, "compute"):
        raise TypeError(
            f"{name} is a dask {type(value).__name__}, which would be computed as a whole: take the op from "
            f"fastsoftmax.dask where that has it, or pass {name}.compute()"
        )


def _refuse_devices(value, name):
    """Its library would refuse, in words of its own, or make an array of one object."""
    from fastsoftmax._cuda.interop import on_device  # which needs `traced`

    if on_device(value):
        raise TypeError(
            f"{name} is a {type(value).__name__} on a CUDA device, not all arrays are: have them all there, "
            f"for an op of backend 'cuda', or {name} in host memory"
        )


def _filled(masked, name, source):
    if name == "labels" and masked.dtype.kind == "f":  # probabilities
        return f"{source}.filled(0)"
    if name == "labels":
        return f"{source}.astype(np.int64).filled(-1) with ignore_index=-1"
    if name == "ptr":  # every place is needed
        return f"np.ma.getdata({source})"
    if name in _FILLED:
        return f"{source}.filled({_FILLED[name]})"
    floats = source if masked.dtype.kind == "f" else f"{source}.astype(np.float64)"
    return f"{floats}.filled(-np.inf)"


def traced(value, name):
    """What to do about a value that a framework follows, or None."""
    package = type(value).__module__.partition(".")[0]
    for (framework, word), way in _TRACED.items():
        if package == framework and word in type(value).__name__:
            return (
                f"{name} is a {type(value).__name__}, and {framework} does not see into fastsoftmax: "
                f"{way.format(name=name)}"
            )
    return None


def _from_objects(value, a, name):
    """What became an array of objects without being one: refused where it is known, or converted."""
    if callable(getattr(value, "toarray", None)):
        raise TypeError(f"{name} is a sparse {type(value).__name__}: pass {name}.toarray()")
    if reason := traced(value, name) or (a.size and traced(a.flat[0], name)):
        raise TypeError(reason)
    if dtype := _nullable(value):
        try:
            return np.asarray(value, dtype)
        except (TypeError, ValueError):  # an entry is missing
            pass
    return a


def _nullable(value):
    """The NumPy dtype of pandas' nullable ones, of a column or of all columns together; else None."""
    declared = getattr(value, "dtypes", getattr(value, "dtype", None))
    columns = list(declared) if np.iterable(declared) else [declared]
    if not any(hasattr(dtype, "numpy_dtype") for dtype in columns):
        return None
    return np.result_type(*(getattr(dtype, "numpy_dtype", dtype) for dtype in columns))


def how_to_convert(a, name, dtype="np.float64"):
    """What makes numbers of an array of another dtype."""
    if a.dtype.kind == "c":
        return f"convert it first, for example with np.real({name})"
    if a.dtype.names:
        return f"convert one field of it first: np.asarray({name})[{a.dtype.names[0]!r}]"
    if a.dtype.kind in "OUS" and (position := _first_odd(a)) is not None:
        spelled = f"{name}{list(position)}" if position else name
        odd = f"{spelled} is {short(a[position])}, which is no real number"
        return f"{odd}: replace that, and convert with np.asarray({name}).astype({dtype})"
    return f"convert it first, for example with np.asarray({name}).astype({dtype})"


def _first_odd(a):
    """The position of the first entry that does not convert to a float."""
    for position, entry in np.ndenumerate(a):
        try:
            float(entry)
        except (TypeError, ValueError, OverflowError):
            return position
    return None
