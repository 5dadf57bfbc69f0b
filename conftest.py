"""What holds for tests, benchmarks and doctests alike: each finds the registry as it was."""

import pytest

from fastsoftmax import registry, set_backend, set_num_threads


@pytest.fixture(autouse=True)
def _registry_as_it_was():
    """Whatever a test or doctest sets or registers is gone after it."""
    backends, kernels = dict(registry._backends), dict(registry._kernels)
    yield
    registry._backends.clear()
    registry._backends.update(backends)
    registry._kernels.clear()
    registry._kernels.update(kernels)
    set_num_threads(None)
    set_backend(None)
