"""Promise: docs/contract.md names, for every rule, tests that exist."""

import ast
import re
from pathlib import Path

import pytest

TESTS = Path(__file__).parent
TABLE = (TESTS.parent / "docs" / "contract.md").read_text("utf-8")
ROWS = [line for line in TABLE.splitlines() if line.startswith("| ") and not line.startswith("| rule")]
NAMED = sorted(set(re.findall(r"`((?:cuda/)?test_\w+\.py::test_\w+)`", TABLE)))


def _tests_of(path):
    return {
        node.name for node in ast.parse(path.read_text("utf-8")).body if isinstance(node, ast.FunctionDef)
    }


@pytest.mark.parametrize("test_id", NAMED)
def test_named_tests_exist(test_id):
    file, name = test_id.split("::")
    assert name in _tests_of(TESTS / file)


@pytest.mark.parametrize("row", ROWS)
def test_every_rule_names_a_test(row):
    assert re.search(r"`test_\w+\.py::test_\w+`", row)


def test_every_test_file_holds_a_rule():
    """Or is this one."""
    unnamed = {p.name for p in TESTS.glob("test_*.py")} - {test_id.split("::")[0] for test_id in NAMED}
    assert unnamed == {Path(__file__).name}


def test_every_test_file_says_what_it_promises():
    for path in TESTS.glob("test_*.py"):
        assert (ast.get_docstring(ast.parse(path.read_text("utf-8"))) or "").startswith("Promise: "), (
            path.name
        )
