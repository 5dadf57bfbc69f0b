"""What passes over dask arrays share: their rows' states, three numbers each, and chunks made of both."""

import math
from functools import reduce
from typing import NamedTuple

import dask.array as da
import numpy as np
from dask.graph_manipulation import clone

import fastsoftmax as fs
from fastsoftmax import _options
from fastsoftmax._arrays import axes_of
from fastsoftmax._front import floating_point_mode
from fastsoftmax.accumulator import rest_of, total_of


def checked(x, axis):
    """``x``, its axes and the result's dtype; dask's empty sample of a chunk has what the ops look at."""
    if not isinstance(x, da.Array):
        raise TypeError(
            f"x must be a dask array; got {type(x).__name__}: pass dask.array.from_array(x), or call the op "
            "of fastsoftmax itself"
        )
    return x, axes_of(axis, x.ndim)[: x.ndim], fs.softmax(x._meta, axis).dtype


def again_of(x, reread):
    """``x`` for the second pass."""
    return clone(x) if _options.as_bool(reread, "reread") else x


def is_whole(x, axes):
    return all(x.numblocks[k] == 1 for k in axes)


def reduced_chunks(x, axes):
    """One value a row and chunk."""
    return tuple((1,) * len(c) if k in axes else c for k, c in enumerate(x.chunks))


def states_of(x, axes):
    """A LogSumExp's state for each row: its three arrays as a first axis, those of ``axes`` of length one."""
    names = tuple(range(x.ndim))
    of_chunks = da.blockwise(
        _state,
        (-1, *names),
        x,
        names,
        axes=axes,
        new_axes={-1: 3},
        adjust_chunks=dict.fromkeys(axes, 1),
        meta=np.empty((0,) * (x.ndim + 1)),
    )
    along = tuple(k + 1 for k in axes)
    return da.reduction(of_chunks, _merge, _merge, axis=along, keepdims=True, dtype=np.float64)


def _state(block, axes):
    state = np.stack(fs.LogSumExp(axes).update(block).state)
    return np.expand_dims(state, tuple(k + 1 for k in axes))


def _merge(states, axis, keepdims):
    """Of states side by side along the axes."""
    count = math.prod(states.shape[k] for k in axis)
    apart = np.moveaxis(states, axis, range(len(axis))).reshape(count, *without(states.shape, axis))
    merged = reduce(fs.LogSumExp.merge, map(as_accumulator, apart))
    return np.expand_dims(np.stack(merged.state), axis)


def as_accumulator(state):
    accumulator = fs.LogSumExp()
    accumulator.state = tuple(state)
    return accumulator


def without(shape, axes):
    return tuple(n for k, n in enumerate(shape) if k not in axes)


def with_states(function, x, axes, states, *others, **options):
    """Chunks of the shape of those of ``x``, from each and its rows' states."""
    names = tuple(range(x.ndim))
    arguments = [(a, names) for a in others]
    return da.blockwise(
        function,
        names,
        x,
        names,
        states,
        (-1, *names),
        *(part for pair in arguments for part in pair),
        concatenate=True,
        axes=axes,
        **options,
    )


class Numbers(NamedTuple):
    """What the formulas take of each row, all NaN where there is no softmax."""

    row_max: np.ndarray
    log_rest: np.ndarray
    reference: np.ndarray
    total: np.ndarray


def numbers_of(state):
    with floating_point_mode(), np.errstate(all="ignore"):
        row_max = np.where(np.isfinite(state[0]), state[0], np.nan)
        state = (row_max, *state[1:])
        numbers = row_max, np.log1p(rest_of(state)), *total_of(state)
        return Numbers(*(np.asarray(a, np.float64) for a in numbers))
