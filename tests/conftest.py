"""Fixtures: one `backend` for all tests. What is not tested here is told in a line a backend at the end."""

import os

import numpy as np
import pytest

from fastsoftmax import _threads, available_backends, backend_status

ASKED_FOR = [name for name in os.environ.get("FASTSOFTMAX_TEST_BACKENDS", "").split(",") if name]
"""Names that must be there: with this set, tests run on these alone, and a missing one fails."""


@pytest.fixture(params=ASKED_FOR or available_backends())
def backend(request):
    """The name of each backend that can run here in turn."""
    status = backend_status().get(request.param, "not in the registry")
    if status != "available":
        pytest.fail(f"backend {request.param}: {status}")
    return request.param


def pytest_terminal_summary(terminalreporter):
    for name, status in backend_status().items():
        if status != "available" and not ASKED_FOR:
            terminalreporter.line(f"NOT TESTED backend {name}: {status}")


@pytest.fixture(params=[np.float64, np.float32], ids=["float64", "float32"])
def dtype(request):
    """The dtypes that kernels compute in."""
    return np.dtype(request.param)


@pytest.fixture
def every_row_a_block(monkeypatch):
    """As many threads as are allowed, however small the arrays."""

    def count_for(kernel, canonical, limit):
        return max(1, min(limit, _threads._rows(canonical)))

    monkeypatch.setattr(_threads, "count_for", count_for)
