"""Fill a recipe with a call's values and launch it; and NumPy arrays there and back."""

import numpy as np

from fastsoftmax._cuda.plan import ACCESS_BYTES

DEFAULT_STREAM = 0
NO_LABEL = -(2**63)  # what `ignored` is where no label is to be ignored


def aligned(*addresses):
    """Whether vector accesses may start at each of the addresses."""
    return not any(address % ACCESS_BYTES for address in addresses)


def launch(driver, recipe, values, workspace, stream):
    """Queue the recipe's kernels; ``workspace`` is an address, where the recipe needs one."""
    values = {**recipe.places(workspace), **values}
    for step in recipe.launches:
        args = [values[a] if isinstance(a, str) else a for a in step.args]
        driver.launch(step, args, stream)


def run_on_host(driver, make_recipe, arrays, outputs, numbers=None):
    """Copy NumPy ``arrays`` to the device, launch, and copy ``outputs`` back: both ``{name: array}``.

    An output may be an input; ``make_recipe(vector, shared_memory)`` gives the recipe.
    """
    memory = _Memory(driver)
    try:
        addresses = {name: memory.copy(array) for name, array in arrays.items()}
        addresses |= {name: memory.reserve(array.nbytes) for name, array in outputs.items()}
        recipe = make_recipe(vector=aligned(*addresses.values()), shared_memory=driver.shared_memory())
        values = {**addresses, **(numbers or {})}
        launch(driver, recipe, values, memory.reserve(recipe.workspace), DEFAULT_STREAM)
        for name, array in outputs.items():
            _download(driver, array, addresses[name])
        driver.synchronize(DEFAULT_STREAM)
    finally:
        memory.release()


class _Memory:
    """Device memory of one call."""

    def __init__(self, driver):
        self._driver, self._addresses = driver, []

    def reserve(self, nbytes):
        if not nbytes:
            return 0
        self._addresses.append(self._driver.allocate(nbytes, DEFAULT_STREAM))
        return self._addresses[-1]

    def copy(self, array):
        array = np.ascontiguousarray(array)
        address = self.reserve(array.nbytes)
        self._driver.upload(address, array, DEFAULT_STREAM)
        return address

    def release(self):
        for address in self._addresses:
            self._driver.free(address, DEFAULT_STREAM)


def _download(driver, array, address):
    if array.flags.c_contiguous:
        driver.download(array, address, DEFAULT_STREAM)
        return
    block = np.empty(array.shape, array.dtype)
    driver.download(block, address, DEFAULT_STREAM)
    driver.synchronize(DEFAULT_STREAM)
    array[...] = block
