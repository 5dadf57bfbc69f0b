"""What users add to a plain call: each side path by name, its arguments and what is said beside them."""

from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any, NamedTuple

import numpy as np

from tests.inputs import rng


class SidePath(NamedTuple):
    """``arrays(*plain)`` are its arguments; all heed ``said(*plain)``, this library alone ``ours``."""

    arrays: Callable = lambda *plain: plain
    said: Callable = lambda *plain: {}
    ours: Mapping[str, Any] = MappingProxyType({})
    is_strided: bool = False


def _rows_apart(a):
    """In an array whose rows are half as long again."""
    m, n = a.shape
    wide = np.zeros((m, (3 * n + 1) // 2), a.dtype)
    wide[:, :n] = a
    return wide[:, :n]


def _weights(x, _labels):
    return rng(3).uniform(0.5, 2, x.shape[-1]).astype(x.dtype)


def _probabilities(x):
    return rng(4).dirichlet(np.full(x.shape[-1], 0.5), len(x)).astype(x.dtype)


PATHS = {
    "where=": SidePath(said=lambda x: {"where": rng(3).random(x.shape) < 0.8}),
    "b=": SidePath(said=lambda x: {"b": rng(3).uniform(size=x.shape).astype(x.dtype)}),
    "rows apart": SidePath(lambda x: (_rows_apart(x),), is_strided=True),
    "g apart": SidePath(lambda y, g: (y, _rows_apart(g)), is_strided=True),
    "Fortran order": SidePath(lambda x: (np.asfortranarray(x),), is_strided=True),
    "ridge=": SidePath(said=lambda *_: {"ridge": 0.1}),
    "a list": SidePath(lambda x: (x.tolist(),)),
    "int32 labels": SidePath(lambda x, labels: (x, labels.astype(np.int32))),
    "probabilities": SidePath(lambda x, labels: (x, _probabilities(x))),
    "sample_weight=": SidePath(
        said=lambda x, _: {"sample_weight": rng(3).uniform(size=len(x)).astype(x.dtype)}
    ),
    "weight=": SidePath(said=lambda *plain: {"weight": _weights(*plain)}),
    "ignore_index=": SidePath(said=lambda *_: {"ignore_index": 1}),
    "label_smoothing=": SidePath(said=lambda *_: {"label_smoothing": 0.1}),
    "reduction='none'": SidePath(said=lambda *_: {"reduction": "none"}),
    "reduction='sum'": SidePath(said=lambda *_: {"reduction": "sum"}),
    "num_threads=1": SidePath(ours={"num_threads": 1}),
    "backend='cython'": SidePath(ours={"backend": "cython"}),
    "use_backend": SidePath(),  # a context, not a word: `peers.default` enters it
}
