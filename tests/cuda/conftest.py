"""Fixtures of the CUDA tests: a driver that interprets kernels, and every regime at a size it can bear."""

import sys
from types import ModuleType

import pytest

pytest.importorskip("greenlet", reason="the interpreter of CUDA kernels needs greenlet")

from fastsoftmax._cuda import availability, recipes
from fastsoftmax._cuda.plan import Plan
from tests.cuda.fake_driver import FakeDriver

collect_ignore = ["compile_check.py"]  # a script, which needs numba-cuda

WIDTHS = {"float64": 2, "float32": 4, "float16": 8, "bfloat16": 8}


def small_plan(regime, storage, n, inner, vector):
    """A plan of a regime as the real rule makes it, with few threads and slots."""
    width = next(w for w in (8, 4, 2, 1) if w <= WIDTHS[storage] and n % w == 0) if inner == 1 else 1
    vector = vector and width > 1
    if regime.startswith("columns"):
        split = regime == "columns split"
        return Plan(storage, 4, 1, 3 if split else -(-n // 4), tile=4, split=split, vector=False)
    threads = {"8 lanes": 8, "16 lanes": 16, "warp": 32}.get(regime, 64)
    slots = width * -(-n // (threads * width))
    if regime == "split":
        return Plan(storage, threads, width, width, shared=True, split=True, vector=vector)
    return Plan(storage, threads, width, slots, shared=regime == "shared", vector=vector)


@pytest.fixture
def use_regime(monkeypatch):
    """``use_regime(name)`` makes all recipes of it."""

    def use(regime):
        def plan(arrays, storage, n, inner=1, *, vector=True, **options):
            return small_plan(regime, storage, n, inner, vector)

        monkeypatch.setattr(recipes, "plan", plan)
        _forget_recipes()

    yield use
    _forget_recipes()


def _forget_recipes():
    recipes.rows_recipe.cache_clear()
    recipes.jacobian_recipe.cache_clear()
    recipes.cross_entropy_recipe.cache_clear()


@pytest.fixture
def driver():
    return FakeDriver()


@pytest.fixture
def installed(monkeypatch, driver):
    """The CUDA backend on the interpreting driver, as if a GPU were there; gives the driver."""
    module = ModuleType("fastsoftmax._cuda.driver")
    module.get_driver = lambda: driver
    monkeypatch.setitem(sys.modules, "fastsoftmax._cuda.driver", module)
    monkeypatch.setattr(availability, "reason_unavailable", lambda: None)
    for name in ("fastsoftmax.backends.cuda", "fastsoftmax._cuda.calls", "fastsoftmax._cuda.operations"):
        monkeypatch.delitem(sys.modules, name, raising=False)
    yield driver
    for name in ("fastsoftmax.backends.cuda", "fastsoftmax._cuda.calls", "fastsoftmax._cuda.operations"):
        sys.modules.pop(name, None)
