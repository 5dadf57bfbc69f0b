"""Test the tests: the library's own kernels, each with a fault planted in it, must fail in lockstep."""

import numpy as np
import pytest

from fastsoftmax._cuda.launcher import launch
from fastsoftmax._cuda.recipes import rows_recipe
from tests.cuda import exact, lockstep
from tests.cuda.test_kernels import logits, run_rows


@pytest.fixture
def plant(monkeypatch):
    """``plant(name=change)`` replaces a target's function by ``change(its function, plan)``."""
    make_target = lockstep.make_target

    def plant(**changes):
        def make(plan):
            t = make_target(plan)
            for name, change in changes.items():
                setattr(t, name, change(getattr(t, name), plan))
            return t

        monkeypatch.setattr(lockstep, "make_target", make)

    return plant


def run_softmax(driver, n=70):
    x = logits((3, n, 1), "float32")
    return run_rows(driver, "softmax", "float32", {"x": x}, x.shape)


class _NoBarriers(lockstep._Cuda):
    def syncthreads(self):
        pass


class _BarrierOfOneWarp(lockstep._Cuda):
    def syncthreads(self):
        if self.threadIdx.x < lockstep.WARP:
            lockstep.getcurrent().wait("block")


@pytest.mark.parametrize("fault", [_NoBarriers, _BarrierOfOneWarp])
def test_barriers(fault, plant, use_regime, driver):
    use_regime("block")
    plant(cuda=lambda cuda, plan: fault())
    with pytest.raises(lockstep.Fault):
        run_softmax(driver)


def test_vector_off_by_one(plant, use_regime, driver):
    use_regime("warp")
    plant(fetch=lambda fetch, plan: lambda p, i, held, slot: fetch(p, i + 1, held, slot))
    with pytest.raises(lockstep.Fault, match=r"misaligned|bounds"):
        run_softmax(driver, 72)


def test_read_beyond_the_row(plant, use_regime, driver):
    use_regime("warp")
    plant(fetch=lambda fetch, plan: lambda p, i, held, slot: fetch(p, i + 4 * 64, held, slot))
    with pytest.raises(lockstep.Fault, match="bounds"):
        run_softmax(driver, 72)


def test_unwritten_tail(plant, use_regime, driver):
    """The threads that hold a row's last entries do not write: the poison stays, and is seen."""
    use_regime("block")

    def without_the_last(put, plan):
        return lambda p, i, held, slot: None if i % 70 >= 68 else put(p, i, held, slot)

    plant(put=without_the_last)
    x = logits((3, 70, 1), "float32")
    with pytest.raises(AssertionError):
        exact.assert_within(
            run_softmax(driver), *exact.forward("softmax", x.astype(np.longdouble), "float32")
        )


def test_sum_of_one_lane_too_few(plant, use_regime, driver):
    use_regime("warp")

    class Wrong(lockstep._Cuda):
        def shfl_xor_sync(self, mask, value, offset):
            received = super().shfl_xor_sync(mask, value, offset)
            return value if offset == 16 else received

    plant(cuda=lambda cuda, plan: Wrong())
    x = logits((3, 70, 1), "float32")
    with pytest.raises(AssertionError):
        exact.assert_within(
            run_softmax(driver), *exact.forward("softmax", x.astype(np.longdouble), "float32")
        )


def test_unaligned_memory_with_vectors(use_regime, driver):
    """A recipe for aligned pointers, launched on an unaligned one."""
    use_regime("warp")
    recipe = rows_recipe("softmax", "float32", (1, 64, 1), vector=True)
    x, out = driver.allocate(256, offset=4), driver.allocate(256)
    with pytest.raises(lockstep.Fault, match="misaligned"):
        launch(driver, recipe, {"x": x, "out": out}, 0, 0)
