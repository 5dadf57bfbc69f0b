"""``python -m fastsoftmax``: what is installed, what can run here, and how fast it is."""

import os
import platform
from functools import partial
from importlib.metadata import PackageNotFoundError, version

import numpy as np

import fastsoftmax as fs
from fastsoftmax._timing import interleave

SHAPES = ((1, 10), (1000, 5), (1000, 100), (1000, 1000))
SECONDS = 5.0
# The naive loops take 1 us an element: longer than this and one call outlasts a cell's share.
MOST_ELEMENTS = {"python": 5000}


def main():
    print(f"fastsoftmax {fs.__version__}   {_versions('numpy', 'numba', 'scipy')}")
    print(f"Python {platform.python_version()}   {platform.system()} {platform.machine()}")
    print(f"CPU level  {cpu_level()}")
    print(f"threads    {fs.get_num_threads()} of {os.cpu_count()} CPUs\n")
    print("backend    status")
    for name, status in fs.backend_status().items():
        print(f"{name:<10} {status}")
    print("\nsoftmax, float64: times as fast as NumPy's textbook formula (its time in the last row)\n")
    for line in _speeds():
        print(line, flush=True)


def _versions(*packages):
    return ", ".join(f"{name} {_version(name)}" for name in packages)


def _version(package):
    try:
        return version(package)
    except PackageNotFoundError:
        return "not installed"


def cpu_level():
    """The instruction set that the compiled kernels were chosen for."""
    if fs.backend_status().get("cython") != "available":
        return "no compiled kernels"
    from fastsoftmax.backends import cython

    return cython.level


def _speeds():
    names = fs.available_backends()
    best = {}
    for shape in SHAPES:
        best[shape] = _best_times(np.random.default_rng(0).normal(size=shape), names)
    yield _row("", map(str, SHAPES))
    for name in names:
        yield _row(name, (_ratio(best[shape], name) for shape in SHAPES))
    yield _row("textbook", (_duration(best[shape]["textbook"]) for shape in SHAPES))


def _best_times(x, names):
    candidates = {
        name: partial(fs.softmax, x, backend=name)
        for name in names
        if x.size <= MOST_ELEMENTS.get(name, x.size)
    }
    candidates["textbook"] = partial(_textbook, x)
    samples = interleave(candidates, SECONDS / len(SHAPES) / 2)
    return {name: min(times) for name, times in samples.items()}


def _textbook(x):
    e = np.exp(x - x.max(axis=-1, keepdims=True))
    return e / e.sum(axis=-1, keepdims=True)


def _ratio(best, name):
    return f"{best['textbook'] / best[name]:.2f} x" if name in best else "-"


def _duration(seconds):
    return f"{seconds * 1e6:,.1f} us"


def _row(name, cells):
    return f"{name:<10}" + "".join(f"{cell:>14}" for cell in cells)


if __name__ == "__main__":
    main()
