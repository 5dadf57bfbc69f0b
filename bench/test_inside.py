"""Calls from users' own code, beside what they write there: loops (Numba, Cython) and formulas (autograd)."""

from functools import cache

import numpy as np
import pytest

import fastsoftmax as fs
from bench.peers import DEFAULT
from bench.results_files import BY_HAND
from tests.inputs import rng

SHAPES = ((1, 10), (1, 20), (1, 64), (1, 1000), (1000, 1000))
CALLS = {10: 2000, 20: 2000, 64: 1000, 1000: 200, 1_000_000: 1}


# Each of these gives our function and the user's.


@cache
def _numba():
    numba = pytest.importorskip("numba")
    from fastsoftmax import _numba_entry

    _numba_entry.init()  # where the package is not installed with its entry point

    @numba.njit
    def ours(x, out, calls):
        for _ in range(calls):
            fs.softmax(x, out=out)

    @numba.njit
    def by_hand(x, out, calls):
        for _ in range(calls):
            for i in range(x.shape[0]):
                most, total = -np.inf, 0.0
                for j in range(x.shape[1]):
                    most = max(most, x[i, j])
                for j in range(x.shape[1]):
                    out[i, j] = np.exp(x[i, j] - most)
                    total += out[i, j]
                for j in range(x.shape[1]):
                    out[i, j] /= total

    return ours, by_hand


@cache
def _cython():
    """Compiled with what the package has installed, and the flags of this Python."""
    pyximport = pytest.importorskip("pyximport", reason="Cython is not installed")
    if fs.backend_status()["cython"] != "available":
        pytest.skip(fs.backend_status()["cython"])
    hooks = pyximport.install(build_dir=".cache/bench/cython")
    try:
        from bench import users_module
    finally:
        pyximport.uninstall(*hooks)
    return users_module.ours, users_module.by_hand


LOOPS = {"Numba": _numba, "Cython": _cython}


@pytest.mark.parametrize("candidate", [DEFAULT, BY_HAND])
@pytest.mark.parametrize("shape", SHAPES, ids=lambda shape: "x".join(map(str, shape)))
@pytest.mark.parametrize("language", LOOPS)
def test_loops(benchmark, language, shape, candidate):
    x = rng().normal(size=shape)
    out, calls = np.empty_like(x), CALLS[x.size]
    function = LOOPS[language]()[candidate == BY_HAND]
    function(x, out, 1)
    np.testing.assert_allclose(out, fs.softmax(x), rtol=1e-13)
    _tell(benchmark, f"softmax {'x'.join(map(str, shape))} f64 in {language}", candidate)
    benchmark.extra_info |= {"bytes": 2 * x.nbytes, "calls": calls}
    benchmark.pedantic(function, (x, out, calls), rounds=25)


def _of_both(of_loss):
    import autograd.numpy as anp
    from autograd.scipy.special import logsumexp

    from fastsoftmax.autograd import cross_entropy

    def composed(x, labels):
        log_p = x - logsumexp(x, axis=-1, keepdims=True)
        return -anp.mean(log_p[np.arange(len(x)), labels])

    return of_loss(cross_entropy), of_loss(composed)


def _gradient():
    from autograd import grad

    return _of_both(grad)


def _hessian_product():
    from autograd.differential_operators import make_hvp

    return _of_both(lambda loss: lambda x, labels: make_hvp(loss)(x, labels)[0](x))


def _jacobian():
    import autograd.numpy as anp
    from autograd import jacobian

    from fastsoftmax.autograd import softmax

    def composed(x):
        e = anp.exp(x - anp.max(x))
        return e / anp.sum(e)

    return tuple(lambda x, _, f=f: jacobian(f)(x[0]) for f in (softmax, composed))


FORMULAS = {
    "gradient of cross_entropy": (_gradient, ((1000, 5), (64, 1000))),
    "Hessian product of cross_entropy": (_hessian_product, ((1000, 5), (64, 1000))),
    "Jacobian of softmax": (_jacobian, ((1, 5), (1, 1000))),
}


@pytest.mark.parametrize("candidate", [DEFAULT, BY_HAND])
@pytest.mark.parametrize("which", [0, 1], ids=["few", "many"])
@pytest.mark.parametrize("derivative", FORMULAS)
def test_formulas(benchmark, derivative, which, candidate):
    pytest.importorskip("autograd")
    both, shapes = FORMULAS[derivative]
    ours, composed = both()
    m, n = shapes[which]
    x, labels = rng().normal(size=(m, n)), rng(1).integers(0, n, m)
    expected = composed(x, labels)
    np.testing.assert_allclose(ours(x, labels), expected, rtol=1e-9, atol=1e-15)
    _tell(benchmark, f"{derivative} {m}x{n} f64 in autograd", candidate)
    benchmark.extra_info["bytes"] = expected.nbytes
    benchmark(ours if candidate == DEFAULT else composed, x, labels)


def _tell(benchmark, case, candidate):
    benchmark.group = case
    benchmark.extra_info |= {"case": case, "candidate": candidate, "threads": 1}
